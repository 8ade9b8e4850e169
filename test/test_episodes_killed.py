"""A recorder that is killed, again and again, at any moment: what is left, and what repair makes of it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import factories
import numpy as np
import pytest
from kill_rig import STEPS, TOPICS
from recording_rig import STEP, T0, stamped, until
from rosbags.rosbag2 import Reader

from dexpie_ros.episodes import read_episode
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.repair import repair

TRIALS, TOGETHER = 30, 5
SECOND = 1_000_000_000


class Nursery:
    """Starts recorders that may be killed."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[1]
        path = os.pathsep.join((str(root), str(root / "test")))
        self._process = subprocess.Popen(
            [sys.executable, str(root / "test/kill_rig.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1"),
        )  # fmt: skip

    def start(self, directory: Path, log: Path) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{directory} {log}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def nursery():
    made = Nursery()
    yield made
    made.close()


def handed_over(log: Path) -> tuple[list[int], bool]:
    """When each step was handed over, in ns, and whether the episode was ended."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [int(line[1]) for line in lines if len(line) == 2], ["ended"] in lines


def test_kill_9_at_random_moments_costs_at_most_the_last_second(nursery, tmp_path):
    """Of what had been handed over to the recorder, in the order in which it was."""
    rng = random.Random(0)
    outcomes = []
    for wave in range(TRIALS // TOGETHER):
        running = []
        for number in range(TOGETHER):
            path, log = tmp_path / f"e{wave}-{number}", tmp_path / f"{wave}-{number}.log"
            running.append((rng.uniform(0.0, 2.4), nursery.start(path, log), path, log))
        for _, _, _, log in running:
            until(lambda log=log: log.exists() and log.read_text())
        begun = time.monotonic()
        for moment, process, _, _ in sorted(running):
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            os.kill(process, signal.SIGKILL)
        for _, process, path, log in running:
            until(lambda process=process: not Path(f"/proc/{process}").exists())
            outcomes.append(check(path, log))
    assert outcomes.count("repaired") >= TRIALS // 2, outcomes


def check(path: Path, log: Path) -> str:
    times, ended = handed_over(log)
    repair(path)
    content = read_episode_file(path)
    assert content.status == "finished" if ended else content.status in ("repaired", "finished")
    recorded = BagReader(find_bag(path)).messages
    safe = len([t for t in times if t < times[-1] - SECOND])
    if content.status == "finished":
        safe = STEPS
    for topic in TOPICS:
        kept = stamped(path, topic) if topic in recorded else []
        assert kept == list(range(len(kept))), "what is kept is what came first, without a hole"
        assert safe <= len(kept) <= len(times) + 1, (topic, len(kept), safe, len(times))
    with Reader(path) as bag:
        assert bag.message_count == content.messages
    assert content.steps == len(recorded.get("/control/step", ()))
    if content.steps > 1:
        episode = read_episode(path)
        assert episode.partial == (content.status != "finished")
        recipe = factories.Recipe()
        steps = (episode.time_ns - T0) // STEP
        truth = np.stack([factories.tcp_at(recipe, k / 25).matrix() for k in steps.tolist()])
        good = ~episode.flags
        assert np.allclose(episode.tcp[good], truth[good], atol=1e-12)
    return content.status
