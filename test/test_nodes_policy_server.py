"""The policy server as a process of its own: what ends it, what it refuses, what it says."""

import sys
import threading
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from policies import tiny_policy

from dexpie_ros.config import ConfigError
from dexpie_ros.control.types import Command, ControlStep, Mode, Observation, RobotState, Source
from dexpie_ros.geometry import Pose
from dexpie_ros.graph import EXIT_CONFIG
from dexpie_ros.nodes.base import ERROR, OK, WARN
from dexpie_ros.nodes.observations import ObservationBuffer
from dexpie_ros.nodes.policy_server import PolicyServer
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.settings import EncoderConfig, InferenceSettings
from dexpie_ros.runtime import run_node

HOME = Pose(np.array([0.4, 0.0, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]))


@pytest.fixture(autouse=True)
def usual_priority(monkeypatch):
    """These nodes run in the process of the tests."""
    monkeypatch.setattr("dexpie_ros.nodes.policy_server.prefer_process", lambda realtime: None)


@pytest.fixture
def policy(tmp_path):
    return tiny_policy().save(tmp_path / "policy")


def arguments(policy, **parameters):
    words = ["--ros-args", "-p", f"policy:={policy}"]
    for name, value in parameters.items():
        words += ["-p", f"{name}:={value}"]
    return words


def run(node, words):
    """As run_node, in a process that goes on."""
    try:
        return run_node(node, words)
    finally:
        rclpy.try_shutdown()


def control_step(time_ns=1_000_000_000):
    command = Command(HOME, np.full(6, 0.5))
    return ControlStep(time_ns, 1, command, Source.POLICY, Mode.POLICY)


class Served(PolicyServer):
    """With a whole observation at hand."""

    def __init__(self):
        super().__init__()
        robot = RobotState(0, np.zeros(6), np.zeros(6), HOME, np.full(6, 0.5))
        self._buffer.at = lambda time_ns, read: Observation(time_ns, robot)


def test_an_error_in_the_inference_thread_ends_the_node_as_a_crash(policy):
    class Broken(Served):
        def __init__(self):
            super().__init__()

            def fail(step, observation):
                raise RuntimeError("out of memory on the device")

            self._async.step = fail
            self._steps.put(control_step())

    with pytest.raises(RuntimeError, match="out of memory on the device"):
        run(Broken, arguments(policy))


def look(policy, then, **parameters):
    """What ``then(node)`` gives of a node that was just made."""
    seen = []

    class Looked(Served):
        def __init__(self):
            super().__init__()
            seen.append(then(self))
            raise ConfigError("seen enough")

    class Ended(Looked):
        def __init__(self):
            try:
                super().__init__()
            except ConfigError:
                self.destroy_node()
                raise

    assert run(Ended, arguments(policy, **parameters)) == EXIT_CONFIG
    return seen[0]


@pytest.mark.parametrize(("gpu", "asked", "taken"), [(True, "auto", "cuda"), (False, "auto", "cpu"),
                                                      (True, "cuda:1", "cuda:1"), (True, "cpu", "cpu")])  # fmt: skip
def test_the_device_is_chosen_where_the_policy_runs(policy, monkeypatch, gpu, asked, taken):
    load, given = Policy.load, []

    def on_this_machine(directory, device, *more):
        given.append(device)
        return load(directory, "cpu", *more)

    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr(Policy, "load", staticmethod(on_this_machine))
    look(policy, lambda node: None, **({} if asked == "auto" else {"device": asked}))
    assert given == [taken]


def test_a_gpu_that_is_not_there_is_a_mistake_and_no_crash(policy, monkeypatch, capfd):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(PolicyServer, arguments(policy, device="cuda")) == EXIT_CONFIG
    assert "device cuda: torch sees no GPU here" in capfd.readouterr().err


def test_what_is_asked_of_a_policy_is_set_at_deployment(policy):
    asked = look(policy, lambda node: node._async.settings)
    assert asked == InferenceSettings(beta=1.5, steps=2, optimality=1.0)  # as it was saved
    asked = look(policy, lambda node: node._async.settings, beta=2.5, steps=7, optimality=0.75)
    assert asked == InferenceSettings(beta=2.5, steps=7, optimality=0.75)
    asked = look(policy, lambda node: node._async.settings, noise=0.0)
    assert asked == InferenceSettings(steps=2, noise=0.0)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"steps": 101}, "steps 101 exceeds"),
        ({"optimality": 1.5}, "optimality"),
        ({"noise": 2.0}, "noise"),
        ({"inference.max_delay": 9}, "max_delay 9"),
    ],
)
def test_settings_that_do_not_fit_are_one_line_and_no_crash(policy, parameters, says, capsys):
    assert run(PolicyServer, arguments(policy, **parameters)) == EXIT_CONFIG
    assert says in capsys.readouterr().err


def test_a_policy_that_needs_a_simulator_is_refused_on_a_robot(tmp_path, capsys):
    spec = ObservationSpec(parts=("tcp", "objects"), object_names=("bottle",))
    knowing = tiny_policy(observation=spec).save(tmp_path / "knowing")
    assert run(PolicyServer, arguments(knowing, objects=False)) == EXIT_CONFIG
    assert "no objects are at hand here" in capsys.readouterr().err


def test_diagnostics_tell_the_delay_and_warn_where_it_is_longer_than_the_prefix(policy):
    def diagnose(latency_s, count, **changes):
        def read(node):
            node._async._latencies.extend([latency_s] * count)
            node._async._inferences, node._async._prefix_sum = count, 3 * count
            node._async._lost = 2
            return node._diagnose()

        return look(policy, read, **changes)

    level, message, values = diagnose(0.1, 50)
    assert (level, message) == (OK, "ready")
    assert values["delay_p99_steps"] == 3  # 100 ms are two steps and a half
    assert (values["lost_chunks"], values["mean_prefix_length"]) == (2, "3.00")
    level, message, _ = diagnose(0.19, 50)
    assert level == WARN
    assert "takes 5 control steps, more than max_delay = 4" in message
    assert diagnose(0.19, 5)[0] == OK  # too few to tell
    assert diagnose(0.19, 50, **{"inference.mode": "sync"})[0] == OK  # the robot waits
    assert diagnose(0.19, 50, lockstep=True)[0] == OK  # virtual time


def test_a_part_of_the_observation_that_grows_old_is_told_at_once(policy):
    """The arbiter holds for it; silence of this node would count later."""
    clock = SimpleNamespace(now=10**12)

    def told(node):
        said, alive = [], []
        node.publish_diagnostics = lambda: said.append(node._diagnose()[:2])
        node._status_publisher = SimpleNamespace(publish=alive.append)
        steps, node._steps = node._steps, SimpleNamespace(empty=lambda: False)
        node.now_ns = lambda: clock.now
        node._running = True
        seen = []
        for late_ms in (0, 200, 240, 280, 320, 0, 40):
            if not late_ms:
                for stream in ("arm", "tcp", "hand"):
                    node._buffer.measured(stream, clock.now, None)
                measured = clock.now
            clock.now = measured + late_ms * 1_000_000
            node._on_step(node.messages.control_step(control_step(clock.now)))
            seen.append(len(alive))
        node._steps = steps
        return said, seen

    said, seen = look(policy, told)
    assert seen == [1, 2, 3, 3, 3, 4, 5], "no sign of life without an observation"
    assert said == [(WARN, "no observation: waiting for arm, hand, tcp"), (OK, "ready")]


def test_the_policy_is_blind_as_soon_as_the_driver_of_one_of_its_cameras_says_so(tmp_path):
    spec = ObservationSpec(parts=("tcp",), images=("front",))
    encoder = EncoderConfig(arch="small_cnn", weights="random", image_size=32)
    directory = tiny_policy(observation=spec, encoder=encoder).save(tmp_path / "policy")

    def told(node):
        said, now = [], 10**12
        node.publish_diagnostics = lambda: said.append(node._diagnose()[:2])
        node.now_ns = lambda: now
        for stream in ("arm", "tcp", "hand"):
            node._buffer.measured(stream, now, None)
        node._buffer.image("front", now, np.zeros((2, 2, 3), np.uint8))
        heard = []
        for running, name, level, text in (
            (False, "camera_front", ERROR, "connecting"),
            (True, "camera_front", OK, "ok"),
            (True, "camera_wrist", ERROR, "was unplugged"),
            (True, "camera_front", WARN, "the camera does not support gain"),
            (True, "camera_front", ERROR, "was unplugged"),
            (True, "camera_front", ERROR, "no RealSense with serial"),
            (True, "camera_front", OK, "ok"),
        ):
            node._running = running
            node._on_diagnostics(node.messages.diagnostics(now, name, level, text, {}))
            heard.append(len(said))
        return said, heard

    said, heard = look(directory, told)
    assert said == [(WARN, "no observation: waiting for front (was unplugged)"), (OK, "ready")]
    assert heard == [0, 0, 0, 0, 1, 1, 2]


class Interrupting(OrderedDict):
    """A stream that another thread would empty whenever it is looked at, were it let."""

    def __init__(self, stream, buffer):
        super().__init__(stream)
        self._buffer = buffer

    def _interrupt(self):
        # the one that empties looks, too, and must not be waited for by itself
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=self._buffer.clear)
            thread.start()
            thread.join(timeout=0.1)

    def __len__(self):
        length = super().__len__()
        self._interrupt()
        return length

    def __contains__(self, key):
        found = super().__contains__(key)
        self._interrupt()
        return found


@pytest.mark.parametrize("method", ["newest", "at", "older_than"])
def test_observations_are_whole_whatever_another_thread_does_meanwhile(method):
    """An inference reads them while the executor goes on hearing and starts an episode."""
    buffer, robot = ObservationBuffer(needs_objects=False), RobotState(7, *[np.zeros(6)] * 4)
    for stream in ("arm", "hand", "tcp"):
        buffer.measured(stream, 7, stream)
        buffer._streams[stream] = Interrupting(buffer._streams[stream], buffer)
    ask = getattr(buffer, method)
    if method == "older_than":
        assert ask(7) == ""
    else:
        reading = (lambda arm, tcp, hand: robot,)
        assert ask(*((7, *reading) if method == "at" else reading)).robot is robot


def test_observations_outlast_two_threads():
    buffer, errors = ObservationBuffer(needs_objects=False), []
    robot = RobotState(0, *[np.zeros(6)] * 4)

    def infer():
        try:
            while writer.is_alive():
                buffer.newest(lambda arm, tcp, hand: robot)
                buffer.older_than(7)
        except (RuntimeError, StopIteration, KeyError) as error:
            errors.append(error)

    def hear():
        for time_ns in range(20_000):
            for stream in ("arm", "hand", "tcp"):
                buffer.measured(stream, time_ns, stream)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer = threading.Thread(target=hear)
    writer.start()
    try:
        infer()
    finally:
        writer.join()
        sys.setswitchinterval(usual)
    assert not errors, errors
