"""The recording of the glove's calibration motion, without waiting for it."""

from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from glove_person import GAINS, angles_of
from rclpy.executors import ExternalShutdownException

from dexpie_ros.config import ConfigError
from dexpie_ros.control.calibration_motion import CalibrationRecording
from dexpie_ros.nodes import glove_motion


class Clock:
    """Time that a test moves on."""

    def __init__(self):
        self.now = 1_000_000_000

    def monotonic_ns(self):
        return self.now

    def monotonic(self):
        return self.now * 1e-9


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(glove_motion, "time", Clock())
    rclpy.init(args=["--ros-args", "-p", f"output:={tmp_path}/motion.json", "-p", "rounds:=1"])
    made = glove_motion.GloveMotion()
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


def test_it_records_until_the_motion_is_over(node, tmp_path, capsys):
    import numpy as np

    rng, gains = np.random.default_rng(0), np.ones(len(GAINS) + 2)
    clock = glove_motion.time
    message = SimpleNamespace(side="left", type=["X"], value=[1.0])
    node._on_glove(message)  # the other hand's does not begin it
    with pytest.raises(ExternalShutdownException):
        while True:
            shown = node._motion.openings(max(0.0, clock.now * 1e-9 - (node._started or 1.0)))
            values = angles_of(shown, rng, gains)
            node._on_glove(
                SimpleNamespace(side="Right", type=list(values), value=list(values.values()))
            )
            node._draw()
            clock.now += 50_000_000
    recording = CalibrationRecording.load(tmp_path / "motion.json")
    assert abs(len(recording) - 20 * node._motion.duration_s) <= 2
    assert recording.openings.min() == 0.0 and recording.openings.max() == 1.0
    assert "samples" in capsys.readouterr().out


def test_a_glove_that_is_switched_off_is_told(node):
    glove_motion.time.now += 11_000_000_000
    with pytest.raises(ConfigError, match="is the glove's driver running"):
        node._draw()
