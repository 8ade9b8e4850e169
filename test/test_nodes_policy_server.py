"""The policy server as a process of its own: what ends it, what it refuses, what it says."""

import numpy as np
import pytest
from policies import tiny_policy

from dexpie_ros.control.types import Command, ControlStep, Mode, Observation, RobotState, Source
from dexpie_ros.geometry import Pose
from dexpie_ros.nodes.policy_server import PolicyServer
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
        run_node(Broken, arguments(policy))
