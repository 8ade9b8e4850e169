"""Parameters as a config, QoS, transport profile, control loop; ends of a node as a process."""

import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from dexpie_ros import runtime
from dexpie_ros.config import ConfigError, config
from dexpie_ros.contract import Qos
from dexpie_ros.control_loop import ControlLoop
from dexpie_ros.resources import share
from dexpie_ros.transport import transport_environment


@config
class Limits:
    speed: float = 0.25
    box: tuple[tuple[float, float], ...] = ((0.0, 1.0), (2.0, 3.0))


@config
class Example:
    rate: float = 25.0
    count: int = 3
    names: tuple[str, ...] = ("a", "b")
    gains: tuple[float, ...] = (1.0, 2.0)
    nothing: tuple[float, ...] = ()
    serial: str | None = None
    limits: Limits = Limits()


@pytest.fixture
def make_node():
    context = rclpy.context.Context()
    rclpy.init(context=context, args=[])
    nodes = []

    def make(**overrides):
        given = [Parameter(k.replace("__", "."), value=v) for k, v in overrides.items()]
        node = rclpy.create_node("example", context=context, parameter_overrides=given)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_who_always_has_something_to_say_leaves_room_for_the_others(make_node):
    node = make_node()
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    heard = []
    node.create_timer(0.001, lambda: time.sleep(0.003))  # due again before it is done
    node.create_timer(0.01, lambda: heard.append(1))
    try:
        runtime.spin_for(executor, 60.0, lambda: len(heard) > 2)
        assert len(heard) == 3
    finally:
        executor.shutdown()


def test_defaults_and_overrides(make_node):
    node = make_node()
    assert runtime.declare_config(node, Example) == Example()
    assert node.get_parameter("limits.speed").value == 0.25
    node = make_node(
        rate=50, names=["x"], gains=[3.0, 4.0], serial="A7", limits__speed=1, limits__box="[[5, 6]]"
    )
    assert runtime.declare_config(node, Example) == Example(
        rate=50.0,
        names=("x",),
        gains=(3.0, 4.0),
        serial="A7",
        limits=Limits(speed=1.0, box=((5.0, 6.0),)),
    )


def test_prefix(make_node):
    node = make_node(arm__limits__speed=0.5)
    assert runtime.declare_config(node, Example, "arm").limits.speed == 0.5
    assert node.has_parameter("arm.limits.speed") and not node.has_parameter("rate")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": "fast"}, "parameters of node example: rate = 'fast'"),
        ({"limits__box": "[1, "}, "limits.box = '[1, ' is no YAML"),
        ({"limits__box": "[[1]]"}, "parameters of node example: limits.box"),
        ({"count": 1.5}, "parameters of node example: count = 1.5"),
    ],
)
def test_wrong_values(make_node, given, message):
    with pytest.raises(ConfigError) as caught:
        runtime.declare_config(make_node(**given), Example)
    assert message in str(caught.value)


def test_unknown_names(make_node):
    with pytest.raises(ConfigError, match=r"unknown parameter arm\.rat; did you mean arm\.rate\?"):
        runtime.declare_config(make_node(arm__rat=1.0), Example, "arm")
    node = make_node(use_sim_time=True, limits__sped=1.0)
    runtime.declare_config(node, Example)
    with pytest.raises(ConfigError, match=r"limits\.sped; did you mean limits\.speed\?"):
        runtime.refuse_unknown_parameters(node)


def test_parameters_do_not_change_later(make_node):
    node = make_node()
    runtime.declare_config(node, Example)
    assert not node.set_parameters([Parameter("rate", value=1.0)])[0].successful


def test_qos():
    state = runtime.qos_profile(Qos.STATE)
    assert state.durability == DurabilityPolicy.TRANSIENT_LOCAL and state.depth == 1
    assert runtime.qos_profile("event").depth == 100
    wish = runtime.qos_profile(Qos.SENSOR, depth=3, best_effort=True)
    assert wish.reliability == ReliabilityPolicy.BEST_EFFORT and wish.depth == 3
    for purpose in Qos:
        assert runtime.qos_profile(purpose).reliability == ReliabilityPolicy.RELIABLE
    with pytest.raises(ValueError, match="nonsense"):
        runtime.qos_profile("nonsense")


@pytest.fixture
def no_profile(monkeypatch):
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("rolling", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_transport_profile(monkeypatch, no_profile, distribution, variable):
    monkeypatch.setenv("ROS_DISTRO", distribution)
    assert list(transport_environment()) == [variable]
    assert not transports(transport_environment()[variable]) & {"SHM"}
    file = transport_environment(images=True)[variable]
    assert transports(file) == {"SHM", "UDPv4"}
    size = ElementTree.parse(file).find(".//{*}segment_size")
    assert size is not None and int(size.text or 0) >= 8 << 20


def transports(file):
    return {element.text for element in ElementTree.parse(file).findall(".//{*}type")}


def test_transport_on_loopback(monkeypatch, no_profile):
    """Inherited by child processes, which choose anew whether they need shared memory."""
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    for images in (True, False, True):
        chosen = transport_environment(images=images)
        assert chosen["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
        file = chosen["FASTDDS_DEFAULT_PROFILES_FILE"]
        assert ("SHM" in transports(file)) == images
        for where in ("interfaceWhiteList", "initialPeersList"):
            addresses = ElementTree.parse(file).findall(f".//{{*}}{where}//{{*}}address")
            assert [address.text for address in addresses] == ["127.0.0.1"]
        for name, value in chosen.items():
            monkeypatch.setenv(name, value)


def test_a_profile_of_the_user_or_another_middleware_is_left_alone(monkeypatch, no_profile):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/mine.xml")
    assert transport_environment() == {}
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE")
    assert transport_environment()
    monkeypatch.setattr("rclpy.get_rmw_implementation_identifier", lambda: "rmw_cyclonedds_cpp")
    assert transport_environment() == {}


def test_shipped_files_are_found_or_the_error_says_where_it_looked():
    assert share("config", "fastdds_images.xml").is_file()
    with pytest.raises(
        FileNotFoundError, match=r"config/no\.xml of dexpie_ros was not found \(sear"
    ):
        share("config", "no.xml")


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.01)


class FakeTime:
    """A clock that only sleeping and ticks move."""

    def __init__(self, busy_ms):
        self.now = 0
        self.busy = iter(busy_ms)
        self.ticks = []
        self.done = threading.Event()

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += round(seconds * 1e9)

    def tick(self):
        self.ticks.append(self.now // 1_000_000)
        busy = next(self.busy, None)
        if busy is None:
            self.done.set()
            self.loop.stop()
            return
        self.now += round(busy * 1e6)


def test_loop_keeps_its_grid_and_skips_what_it_cannot_keep():
    # period 40 ms; the third tick takes 130 ms: 120 and 160 are missed, 200 comes on the old grid
    fake = FakeTime([1, 1, 130, 1, 39, 1])
    fake.loop = ControlLoop(0.04, fake.tick, clock=fake.clock, sleep=fake.sleep)
    fake.loop.start()
    assert fake.done.wait(60)
    fake.loop.stop()
    assert fake.ticks == [0, 40, 80, 210, 240, 280, 320]
    statistics = fake.loop.statistics()
    assert statistics.missed == 2 and statistics.ticks == 7
    assert statistics.period_max == 130.0 and statistics.late_p99 == pytest.approx(10, abs=1)


def test_loop_hands_on_the_error_of_a_tick():
    def fail():
        raise KeyError("broken")

    loop = ControlLoop(0.01, fail)
    loop.start()
    until(lambda: not loop.running)
    with pytest.raises(KeyError, match="broken"):
        loop.stop()
    errors = []
    loop = ControlLoop(0.01, fail, on_error=errors.append)
    loop.start()
    until(lambda: errors)
    loop.stop()
    assert [str(e) for e in errors] == ["'broken'"]
    with pytest.raises(ValueError, match="expected more than 0"):
        ControlLoop(0.0, fail)


NODE = """
import os, signal, sys, threading
from rclpy.node import Node
from dexpie_ros import runtime
from dexpie_ros.config import ConfigError
class Example(Node):
    def __init__(self):
        super().__init__("example")
        if "half" in sys.argv: raise ConfigError("port 5 is in use")
        self.whole = True
        if "crash" in sys.argv: self.loop = runtime.ControlLoop(0.02, lambda: 1 / 0, on_error=runtime.abort); self.loop.start()
        if "int" in sys.argv: threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        if "term" in sys.argv: threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    def destroy_node(self):
        assert self.whole
        if "int" in sys.argv: os.kill(os.getpid(), signal.SIGINT)  # an impatient second Ctrl-C
        print("closed", flush=True)
        super().destroy_node()
sys.exit(runtime.run_node(Example))
"""


@pytest.mark.parametrize(
    ("arguments", "status", "output", "error"),
    [
        (["int"], 0, "closed", ""),
        (["term"], 0, "closed", ""),
        (["crash"], 1, "closed", "ZeroDivisionError"),
        (["half"], 2, "", "error: port 5 is in use\n"),
        (["--ros-args", "-p", "rat:=1"], 2, "closed", "error: node example: unknown parameter rat"),
        (["--ros-args", "--params-file", "/none.yaml"], 2, "", "error: ROS 2 arguments: "),
    ],
)
def test_exit_status(arguments, status, output, error):
    done = subprocess.run(
        [sys.executable, "-c", NODE, *arguments],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (status, output), done.stderr
    assert error in done.stderr
    assert ("Traceback" in done.stderr) is (status == 1)


def test_node_does_not_outlive_a_supervisor_that_is_gone():
    done = subprocess.run(
        [sys.executable, "-c", NODE], env={**os.environ, "DEXPIE_SUPERVISOR_PID": "1"},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_images_get_through_the_profile(tmp_path):
    """Best effort, 0.9 MB each, two processes: the default transport loses most of these."""
    command = [sys.executable, str(Path(__file__).parent / "graph_nodes/images.py")]
    sender = subprocess.Popen([*command, "send"])
    try:
        shares = []
        for _ in range(5):  # who does not get to run for a moment loses what came then
            done = subprocess.run(
                [*command, "receive"], capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            received, numbers = (int(word) for word in done.stdout.split())
            shares.append(received / numbers)
            if shares[-1] >= 0.9:
                break
    finally:
        sender.terminate()
        try:
            sender.wait(60)
        finally:
            sender.kill()
    assert shares[-1] >= 0.9, f"of the images there arrived {shares}"
