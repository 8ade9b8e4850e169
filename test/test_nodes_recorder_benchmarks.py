"""What `dexpie bench recorder` counts."""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros import bench as benches
from dexpie_ros.config import ConfigError
from dexpie_ros.nodes import recorder_benchmarks as bench

SECOND = 1_000_000_000
ROS2 = f"""#!{sys.executable}
import signal, sys
from pathlib import Path
from dexpie_ros import messages
from dexpie_ros.episodes.bag_writer import BagWriter
signal.signal(signal.SIGINT, lambda *_: None)
assert sys.argv[1:5] == ["bag", "record", "-s", "mcap"], sys.argv
store, kind, k = messages.bag_typestore(), "geometry_msgs/msg/PoseStamped", 0
with BagWriter(sys.argv[sys.argv.index("-o") + 1], durable=False) as writer:
    definition, _ = store.generate_msgdef(kind, ros_version=2)
    writer.add_topic("/arm/tcp_pose", kind, definition, "", "")
    writer.flush()
    signal.pause()
    writer.finish({{}})
"""


def test_what_is_missing_between_the_first_and_the_last_is_lost():
    grid = [7 + k * SECOND // 60 for k in range(100)]
    assert bench.lost(grid, 60) == 0 and bench.rate_hz(grid) == pytest.approx(60.0)
    assert bench.lost([*grid[:10], *grid[13:50], *grid[51:]], 60) == 4
    assert bench.lost(grid[::-1], 60) == 0 and bench.lost([*grid, grid[3]], 60) == 0
    assert bench.lost([], 60) == 60, "nothing came: it does not look whole"


def test_long_runs_are_cut_into_episodes():
    assert bench.parts(5.0) == [5.0] and bench.parts(600.0) == [20.0] * 30
    two = [{"cores": 0.2, "hz": 60.0, "dropped": 1.0, "gb": 2.0, "s": 20.0},
           {"cores": 0.4, "hz": 58.0, "dropped": 2.0, "gb": 1.0, "s": 20.0}]  # fmt: skip
    assert bench.together("x", two) == pytest.approx(
        {"x_cores": 0.3, "x_hz": 59.0, "x_dropped": 3.0, "x_gb": 3.0, "x_s": 40.0}
    )


def test_the_processor_time_of_a_process_is_its_own():
    before, mine = bench.processor_s(os.getpid()), time.process_time()
    while time.process_time() - mine < 0.3:
        pass
    used = bench.processor_s(os.getpid()) - before
    assert used == pytest.approx(time.process_time() - mine, abs=0.1)


def test_only_a_benchmark_that_lasts_takes_a_time(tmp_path):
    parser = argparse.ArgumentParser()
    benches.add_parser(parser.add_subparsers())
    for arguments in (["episodes", "--seconds", "3"], ["recorder", "--seconds", "-1"]):
        options = parser.parse_args(["bench", *arguments, "--output", str(tmp_path)])
        with pytest.raises(ConfigError, match="--seconds"):
            options.run(options)


@pytest.mark.slow
def test_two_processes_and_a_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it one that answers to the name of ros2; how fast this machine is does not matter."""
    fake = tmp_path / "bin/ros2"
    fake.parent.mkdir()
    fake.write_text(ROS2)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DEXPIE_BENCH_DIR", str(tmp_path))
    monkeypatch.setattr(bench, "SETTLE_S", 0.5)
    figures = bench.bench_recorder(seconds=1.0)
    for name in ("recorder_dds", "ros2_bag"):
        assert figures[f"{name}_s"] == 1.0 and figures[f"{name}_cores"] >= 0
    assert figures["recorder_dds_cores"] > 0 and figures["recorder_dds_gb"] > 0.001
    assert figures["ros2_bag_dropped"] == sum(bench.RATES.values()), "it wrote nothing"
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
