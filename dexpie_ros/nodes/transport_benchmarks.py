"""What the death of one process costs its neighbours: `dexpie bench transport`.

Two processes publish to a third one; the first as fast as it can, until it is killed (SIGKILL), again and
again; the second at 50 Hz throughout. Once over shared memory, once over UDP (`dexpie_ros.transport`).
Run as a module, this is each of the three: ``ROLE IMAGES KILLS``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node

from dexpie_ros.nodes.base import interface
from dexpie_ros.runtime import prepare_process, spin_for

STEADY_HZ = 50.0
STOP_S = 0.5
"""A pause of the steady publisher that is no jitter of a busy machine."""
PATIENCE_S = 60.0
TEXT = "std_msgs/msg/String"


def bench_transport(*, quick: bool = False) -> dict[str, Any]:
    """``<transport>_stops``: pauses above 0.5 s of the one that was not killed, in ``kills`` kills
    of the other; ``<transport>_longest_s``: its longest pause.
    """
    kills = 10 if quick else 150
    figures: dict[str, Any] = {"kills": kills}
    for name, images in (("shared_memory", True), ("udp", False)):
        done = subprocess.run(
            _process("listen", images, kills), stdout=subprocess.PIPE, text=True, check=True
        )
        for key, value in json.loads(done.stdout).items():
            figures[f"{name}_{key}"] = value
    return figures


def _process(role: str, images: bool, kills: int = 0) -> list[str]:
    return [sys.executable, "-m", __spec__.name, role, str(int(images)), str(kills)]


def _listen(node: Node, images: bool, kills: int) -> dict[str, Any]:
    published: list[float] = []
    flooded: set[str] = set()
    node.create_subscription(
        interface(TEXT), "/bench/steady", lambda m: published.append(float(m.data)), 1000
    )
    node.create_subscription(interface(TEXT), "/bench/flood", lambda m: flooded.add(m.data), 1)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    steady = subprocess.Popen(_process("steady", images))
    pauses = random.Random(0)
    try:
        _until(executor, lambda: bool(published), "the steady publisher")
        for _ in range(kills):
            flood = subprocess.Popen(_process("flood", images))
            try:
                _until(
                    executor, partial(flooded.__contains__, str(flood.pid)), "the other publisher"
                )
                spin_for(executor, pauses.uniform(0.1, 0.2))
            finally:
                flood.kill()
                flood.wait()
            spin_for(executor, 0.3)
        spin_for(executor, 2.0)
    finally:
        steady.kill()
        steady.wait()
    gaps = [after - before for before, after in zip(published, published[1:], strict=False)]
    return {"stops": sum(gap > STOP_S for gap in gaps), "longest_s": round(max(gaps), 3)}


def _until(executor: Executor, true: Callable[[], bool], who: str) -> None:
    spin_for(executor, PATIENCE_S, true)
    if not true():
        raise TimeoutError(f"{who} was not heard within {PATIENCE_S:g} s")


def _publish(node: Node, role: str) -> None:
    text = interface(TEXT)
    output = node.create_publisher(text, f"/bench/{role}", 1000 if role == "steady" else 1)
    while True:
        if role == "steady":
            output.publish(text(data=repr(time.monotonic())))
            time.sleep(1 / STEADY_HZ)
        else:
            output.publish(text(data=str(os.getpid())))


def _take_part() -> None:
    role, images, kills = sys.argv[1], sys.argv[2] == "1", int(sys.argv[3])
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    prepare_process(images=images)
    rclpy.init()
    node = rclpy.create_node(f"bench_{role}")
    if role == "listen":
        print(json.dumps(_listen(node, images, kills)), flush=True)
        rclpy.try_shutdown()
    else:
        _publish(node, role)


if __name__ == "__main__":
    _take_part()
