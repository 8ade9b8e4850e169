"""What recording costs between real processes: `dexpie bench recorder`.

One process publishes what two cameras (640x480 rgb8 at 60 Hz) and an arm (125 Hz) publish, the recorder
node records it over DDS, both as a launch starts them; where `ros2` is installed, `ros2 bag record -s
mcap` records the same afterwards. Run as a module, this is the publishing process.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros.contract import CAMERAS
from dexpie_ros.control.types import ARM_JOINTS
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.decoding import header_stamp_ns
from dexpie_ros.geometry import Pose
from dexpie_ros.node_spec import NodeSpec
from dexpie_ros.nodes.base import ContractNode, interface
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.running_graph import RunningGraph
from dexpie_ros.runtime import run_node

SOURCE = "bench_source"
RATES = {
    **{f"/camera/{name}/color/image_raw": 60 for name in CAMERAS},
    "/arm/tcp_pose": 125,
    "/arm/joint_states": 125,
}
SETTLE_S = 2.0
EPISODE_S = 20.0
"""Longer ones are recorded one after the other and deleted as they end, so that the disk holds."""
SECOND = 1_000_000_000


class Source(ContractNode):
    """Publishes every stream on a grid of its own; a message that is late keeps its stamp."""

    def __init__(self) -> None:
        super().__init__(SOURCE)
        self._outputs = {topic: self.publisher(topic) for topic in RATES}
        noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
        pose = Pose(np.array([0.4, 0.0, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]))
        self._said: dict[str, Any] = {
            "/arm/tcp_pose": self.messages.pose_stamped(0, "base", pose),
            "/arm/joint_states": self.messages.joint_state(0, ARM_JOINTS, np.zeros(6), np.zeros(6)),
            **{
                topic: self.messages.image(0, topic.split("/")[2], noise)
                for topic in RATES
                if topic.startswith("/camera")
            },
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=SOURCE)
        self._thread.start()

    def destroy_node(self) -> None:
        self._stop.set()
        self._thread.join()
        super().destroy_node()

    def _run(self) -> None:
        begin, count = self.now_ns(), dict.fromkeys(RATES, 0)
        while not self._stop.is_set():
            due, topic = min((begin + count[t] * SECOND // rate, t) for t, rate in RATES.items())
            if (ahead := due - self.now_ns()) > 0:
                self._stop.wait(ahead * 1e-9)
                continue
            message = self._said[topic]
            message.header.stamp = self.messages.time(due)
            self._outputs[topic].publish(message)
            count[topic] += 1


def bench_recorder(quick: bool = False, seconds: float | None = None) -> dict[str, float]:
    """``recorder_dds_cores``: processor time of the recorder's process by wall time, while it records;
    ``recorder_dds_dropped``: messages between the first and the last of each stream that are not in the
    bag; ``recorder_dds_hz``: of one camera, as recorded. ``ros2_bag_*``: the same of `ros2 bag record`.

    Takes ``seconds`` (10; quick: 5) for each of them.
    """
    length = seconds or (5.0 if quick else 10.0)
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("DEXPIE_BENCH_DIR")) as name,
        SessionClient("bench") as client,
    ):
        folder = Path(name)
        client.spin_for(SETTLE_S)
        others = set(client.node.get_node_names()) - {client.node.get_name()}
        if others:
            raise client.error(
                f"bench recorder: {', '.join(sorted(others))} run here already, and would hear a robot "
                "that is none; set ROS_DOMAIN_ID to another number"
            )
        figures = _ours(client, folder, length)
        if shutil.which("ros2"):
            figures |= _theirs(client, folder, length)
    return {key: round(value, 4) for key, value in figures.items()}


def _ours(client: SessionClient, folder: Path, seconds: float) -> dict[str, float]:
    recorder = NodeSpec("recorder", parameters={"directory": str(folder), "images": "raw"})
    with RunningGraph([_source(), recorder], log_file=folder / "graph.log") as graph:
        start = client.node.client("/recorder/start_episode")
        end = client.node.client("/recorder/end_episode")
        _until(client, graph, lambda: start.service_is_ready() and _published(client))
        client.spin_for(SETTLE_S)
        kind = interface("dexpie_msgs/srv/StartEpisode")
        pid = graph.supervisor.nodes["recorder"].pid
        assert pid is not None
        found = []
        for number, length in enumerate(parts(seconds)):
            name = f"bench-{number}"
            _ask(client, graph, start, kind.Request(episode_id=name, kind="deployment"))
            cores = _cores(client, graph, pid, length)
            request = interface("dexpie_msgs/srv/EndEpisode").Request(outcome="success")
            _ask(client, graph, end, request)
            found.append(_figures(folder / name, cores, length))
            shutil.rmtree(folder / name)
    return together("recorder_dds", found)


def _theirs(client: SessionClient, folder: Path, seconds: float) -> dict[str, float]:
    out, found = folder / "ros2_bag", []
    command = ["ros2", "bag", "record", "-s", "mcap", "-o", str(out), *RATES]
    with (
        RunningGraph([_source()], log_file=folder / "ros2.log") as graph,
        open(folder / "ros2_bag.log", "wb") as log,
    ):
        _until(client, graph, lambda: _published(client))
        for length in parts(seconds):
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                _until(client, graph, lambda: any(out.glob("*.mcap")))
                client.spin_for(SETTLE_S)
                cores = _cores(client, graph, process.pid, length)
            finally:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(60)
            found.append(_figures(out, cores, length))
            shutil.rmtree(out)
    return together("ros2_bag", found)


def _source() -> NodeSpec:
    return NodeSpec(SOURCE, module="dexpie_ros.nodes.recorder_benchmarks")


def _published(client: SessionClient) -> bool:
    return all(client.node.count_publishers(topic) for topic in RATES)


def _until(client: SessionClient, graph: RunningGraph, true: Any, patience_s: float = 60.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        graph.check()
        if time.monotonic() > end:
            raise client.error(f"bench recorder: not ready within {patience_s:g} s")
        client.spin_for(0.05)


def _ask(client: SessionClient, graph: RunningGraph, service: Any, request: Any) -> None:
    future = service.call_async(request)
    _until(client, graph, future.done)
    if not future.result().success:
        raise client.error(f"bench recorder: {future.result().message}")


def _cores(client: SessionClient, graph: RunningGraph, pid: int, seconds: float) -> float:
    """Processor time of a process by wall time."""
    work, begin = processor_s(pid), time.monotonic()
    while time.monotonic() < begin + seconds:
        graph.check()
        client.spin_for(0.1)
    return (processor_s(pid) - work) / (time.monotonic() - begin)


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used, with all its threads."""
    text = Path(f"/proc/{pid}/stat").read_text()
    # Behind the name, which may hold anything: user and system time are fields 14 and 15.
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parts(seconds: float) -> list[float]:
    """Episodes of equal length that last ``seconds`` together."""
    count = max(1, math.ceil(seconds / EPISODE_S))
    return [seconds / count] * count


def together(name: str, found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of episodes of equal length: counts are added, rates averaged."""
    added = ("dropped", "gb", "s")
    return {
        f"{name}_{key}": sum(f[key] for f in found) / (1 if key in added else len(found))
        for key in found[0]
    }


def _figures(directory: Path, cores: float, seconds: float) -> dict[str, float]:
    streams = BagReader(find_bag(directory)).messages
    stamps = {
        topic: [header_stamp_ns(cdr) for cdr in streams[topic].payloads] if topic in streams else []
        for topic in RATES
    }
    camera = f"/camera/{CAMERAS[0]}/color/image_raw"
    size = sum(len(cdr) for topic in RATES if topic in streams for cdr in streams[topic].payloads)
    return {
        "cores": cores,
        "dropped": float(sum(lost(stamps[t], rate) for t, rate in RATES.items())),
        "hz": rate_hz(stamps[camera]),
        "gb": size / 1e9,
        "s": seconds,
    }


def lost(stamps: Sequence[int], rate: int) -> int:
    """Of a grid of stamps those missing between the first and the last that are there."""
    if not stamps:
        return rate
    rows = {round((stamp - min(stamps)) * rate / SECOND) for stamp in stamps}
    return max(rows) + 1 - len(rows)


def rate_hz(stamps: Sequence[int]) -> float:
    span = max(stamps, default=0) - min(stamps, default=0)
    return (len(stamps) - 1) * SECOND / span if span else 0.0


if __name__ == "__main__":
    sys.exit(run_node(Source, images=True))
