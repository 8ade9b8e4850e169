"""A corpus of broken episodes: an error that names the file, or an episode that owns up to it.

Whatever is not flagged must be exactly what was recorded; nothing may take long or eat memory.
"""

import resource
import shutil
import time

import factories
import mutations
import numpy as np
import pytest

from dexpie_ros.episodes import Collection, EpisodeError, WriterConfig, read_episode
from dexpie_ros.episodes.repair import repair

ARRAYS = (
    "tcp", "joints", "hand", "hand_force", "command_tcp", "command_hand", "source", "mode",
    "proposal_tcp", "human_hand", "objects", "contact", "tick",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return factories.write_episode(
        tmp_path_factory.mktemp("source") / "e",
        factories.Recipe(steps=24, images=True, human=((6, 12),), events=((3, "{}"),)),
        writer=WriterConfig(durable=False, chunk_bytes=6 << 10),
    )


def check(episode, truth, name):
    """Every row that is not flagged is the truth; what is missing is said."""
    position = {int(t): i for i, t in enumerate(truth.time_ns)}
    good = np.flatnonzero(~episode.flags)
    rows = [position[int(t)] for t in episode.time_ns[good]]
    for field in ARRAYS:
        mine, true = getattr(episode, field)[good], getattr(truth, field)[rows]
        if field in ("objects", "contact") and not episode.object_names:
            continue
        assert np.array_equal(mine, true, equal_nan=mine.dtype.kind == "f"), (name, field)
    complete = len(episode) == len(truth) and not episode.flags.any()
    assert complete or episode.problems, name


def test_the_corpus(source, tmp_path):
    truth = read_episode(source)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    count = {"error": 0, "partial": 0, "flagged": 0, "equal": 0}
    slowest = (0.0, "")
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
    try:
        for number, (name, mutate) in enumerate(mutations.cases(source)):
            path = tmp_path / f"{number}" / "e"
            shutil.copytree(source, path)
            mutate(path)
            began = time.process_time()
            try:
                episode = read_episode(path)
            except EpisodeError as error:
                assert str(path) in str(error), name
                count["error"] += 1
            else:
                check(episode, truth, name)
                state = (
                    "partial" if episode.partial else "flagged" if episode.flags.any() else "equal"
                )
                count[state] += 1
            slowest = max(slowest, (time.process_time() - began, name))
            listed = Collection(path.parent)
            assert all(entry.error or entry.content for entry in listed), name
            shutil.rmtree(path.parent)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert sum(count.values()) >= 200
    assert all(count.values()), count
    # Not a matter of speed: nothing may loop over a length that somebody made up.
    assert slowest[0] < 5.0, slowest


def test_repairing_the_corpus_never_makes_it_worse(source, tmp_path):
    truth = read_episode(source)
    cases = [c for c in mutations.cases(source) if c[0].startswith(("cut", "bit", "600", "50"))]
    repaired = 0
    for number, (name, mutate) in enumerate(cases):
        path = tmp_path / f"{number}" / "e"
        shutil.copytree(source, path)
        mutate(path)
        text = (path / "episode.json").read_text()
        (path / "episode.json").write_text(text.replace('"finished"', '"recording"'))
        try:
            before = read_episode(path)
        except EpisodeError:
            before = None
        try:
            repair(path)
        except EpisodeError as error:
            assert str(path) in str(error), name
            continue
        repaired += 1
        if before is not None:
            after = read_episode(path)
            check(after, truth, name)
            assert len(after) == len(before) and np.array_equal(after.flags, before.flags), name
        shutil.rmtree(path.parent)
    assert repaired > 70
