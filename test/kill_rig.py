"""Records in children of one process that has imported everything: for the test that kills them.

Reads ``<episode directory> <log file>`` a line from stdin and answers with the child's process id. The
child records as the recorder does, through queue and writer thread, in real time; in its log stands
what it has handed over, and when.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from recording_rig import STEP, T0, all_streams, sample

from dexpie_ros import messages
from dexpie_ros.contract import recorded_topics
from dexpie_ros.episodes import EpisodeInfo, WriterConfig
from dexpie_ros.episodes.recording import Recording, RecordingConfig

STEPS = 55
"""After so many it ends the episode, and waits."""
CAMERA = "/camera/front/color/image_raw/compressed"
TOPICS = ("/arm/joint_states", "/arm/tcp_pose", "/hand/joint_states", "/control/step", CAMERA)


def said(k: int) -> list[tuple[str, bytes, int, int]]:
    """What a robot and a camera say at step k; the picture is noise of the usual size."""
    noise = np.random.default_rng(k).integers(0, 255, 30_000, np.uint8).tobytes()
    picture = messages.bag().compressed_image(T0 + k * STEP, "front", noise)
    return [*all_streams(k), sample(k, CAMERA, messages.serialize(picture))]


def record(directory: Path, log: Path, plan: list[list[tuple[str, bytes, int, int]]]) -> None:
    signal.alarm(120)  # whatever becomes of the test
    # A kill takes nothing from the kernel; how slow the disk is shall not matter here.
    settings = RecordingConfig(minimum_free_gb=0.0, writer=WriterConfig(durable=False))
    recording = Recording(recorded_topics(), settings)
    recording.start(directory, EpisodeInfo(directory.name, simulated=True), start_ns=T0)
    told = os.open(log, os.O_WRONLY | os.O_CREAT)
    begin = time.monotonic()
    for k, items in enumerate(plan):
        for item in items:
            recording.receive(*item)
        os.write(told, f"{k} {time.monotonic_ns()}\n".encode())
        time.sleep(max(0.0, begin + (k + 1) * STEP * 1e-9 - time.monotonic()))
    recording.end("success")
    os.write(told, b"ended\n")
    signal.pause()


def main() -> None:
    plan = [said(k) for k in range(STEPS)]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    for line in sys.stdin:
        directory, log = map(Path, line.split())
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            record(directory, log, plan)
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
