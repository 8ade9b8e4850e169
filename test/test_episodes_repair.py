"""What survives a crash at any moment, and what a repair makes of it."""

import os
import random
import shutil
import time
from pathlib import Path

import factories
import numpy as np
import pytest
from factories import Recipe
from rosbags.rosbag2 import Reader

from dexpie_ros import messages
from dexpie_ros.episodes import Collection, EpisodeError, EpisodeInfo, EpisodeWriter, read_episode
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.bag_writer import BagWriter
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.repair import repair
from dexpie_ros.episodes.writer import WriterConfig


def cut(path: Path, size: int) -> None:
    """As a crash leaves a recording: nothing after ``size`` bytes, never finished."""
    with open(find_bag(path), "r+b") as stream:
        stream.truncate(size)
    (path / "metadata.yaml").unlink(missing_ok=True)
    content = (path / "episode.json").read_text()
    content = content.replace('"finished"', '"recording"').replace('"success"', '""')
    (path / "episode.json").write_text(content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    # Chunks of 8 kB, so that a bag of seconds has many.
    return factories.write_episode(
        tmp_path_factory.mktemp("whole") / "e",
        Recipe(steps=50, human=((10, 20),)),
        writer=WriterConfig(durable=False, chunk_bytes=8 << 10),
    )


def test_a_cut_at_any_byte_loses_only_what_came_after_the_last_whole_chunk(whole, tmp_path):
    truth = read_episode(whole)
    size = find_bag(whole).stat().st_size
    rng = random.Random(1)
    steps = []
    for at in sorted(rng.sample(range(30_000, size), 40)):
        path = tmp_path / "e"
        shutil.copytree(whole, path)
        cut(path, at)
        partial = read_episode(path)
        assert partial.partial and partial.problems
        n = len(partial)
        steps.append(n)
        for name in ("time_ns", "tcp", "joints", "hand", "command_tcp", "source"):
            assert np.array_equal(
                getattr(partial, name)[~partial.flags], getattr(truth, name)[:n][~partial.flags]
            ), name
        shutil.rmtree(path)
    assert steps == sorted(steps) and steps[0] >= 5 and steps[-1] >= 48


def test_repair_makes_a_bag_that_ros_reads_and_marks_it(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "e")
    cut(path, 60_000)
    before = read_episode(path)
    assert Collection(tmp_path).entries[0].status == "recording"
    done = repair(path)
    assert done.changed and 0 < done.lost_bytes < 20_000
    after = read_episode(path)
    assert np.array_equal(after.tcp, before.tcp) and np.array_equal(after.human, before.human)
    content = read_episode_file(path)
    assert content.status == "repaired" and content.repair["lost_bytes"] == done.lost_bytes
    assert content.steps == len(after) and content.human_steps == after.human.sum() == 10
    assert after.partial and after.outcome == ""
    with Reader(path) as bag:
        assert bag.message_count == content.messages
    assert not list(path.glob("*.repair"))
    # Judged by a person, it can be used.
    assert not Collection(tmp_path).entries[0].usable
    annotate(path, outcome="failure")
    assert Collection(tmp_path).entries[0].usable


def test_repair_leaves_whole_recordings_alone(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "e")
    before = {f.name: (f.read_bytes(), f.stat().st_ino) for f in path.iterdir()}
    assert not repair(path).changed
    assert before == {f.name: (f.read_bytes(), f.stat().st_ino) for f in path.iterdir()}
    cut(path, 60_000)
    repair(path)
    inode = find_bag(path).stat().st_ino
    assert not repair(path).changed
    assert find_bag(path).stat().st_ino == inode


def test_a_finished_recording_that_was_damaged_later_is_not_rewritten(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "e")
    with open(find_bag(path), "r+b") as stream:
        stream.truncate(60_000)
    with pytest.raises(EpisodeError, match="restore it from a backup"):
        repair(path)
    assert find_bag(path).stat().st_size == 60_000
    assert read_episode(path).partial


def test_killed_after_the_bag_but_before_the_description(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "e")
    bag = find_bag(path).read_bytes()
    (path / "metadata.yaml").unlink()
    text = (path / "episode.json").read_text()
    (path / "episode.json").write_text(text.replace('"finished"', '"recording"'))
    assert repair(path).changed
    assert find_bag(path).read_bytes() == bag
    assert read_episode_file(path).status == "finished"
    assert not read_episode(path).partial
    with Reader(path) as reader:
        assert reader.message_count == 250


@pytest.mark.parametrize("content", [None, "", "{", '{"format": 1}'])
def test_a_lost_description_is_renewed_from_the_bag(whole, tmp_path, content):
    path = shutil.copytree(whole, tmp_path / "e")
    (path / "episode.json").unlink()
    if content is not None:
        (path / "episode.json").write_text(content)
    assert repair(path).changed
    assert read_episode_file(path) == read_episode_file(whole)


def test_what_is_being_recorded_is_not_repaired(tmp_path):
    with EpisodeWriter(tmp_path / "e", EpisodeInfo("e")):
        with pytest.raises(EpisodeError, match="is being recorded"):
            repair(tmp_path / "e")


def test_damage_in_the_middle_costs_one_chunk(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "e")
    with open(find_bag(path), "r+b") as stream:
        stream.seek(60_000)
        stream.write(b"\xff" * 16)
    episode = read_episode(path)
    assert episode.partial and any("checksum" in p for p in episode.problems)
    truth = read_episode(whole)
    assert len(episode) == len(truth) and 0 < episode.flags.sum() < 10
    good = ~episode.flags
    assert np.array_equal(episode.tcp[good], truth.tcp[good])
    assert np.array_equal(episode.command_tcp[good], truth.command_tcp[good])
    # A command that was lost is not invented.
    known = np.isfinite(episode.command_hand).all(axis=1)
    assert np.array_equal(episode.command_hand[known], truth.command_hand[known])


def test_a_repair_that_is_killed_can_be_repeated(whole, tmp_path, monkeypatch):
    path = shutil.copytree(whole, tmp_path / "e")
    cut(path, 60_000)
    torn = find_bag(path).read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        repair(path)
    monkeypatch.undo()
    assert find_bag(path).read_bytes() == torn
    assert repair(path).changed
    assert BagReader(find_bag(path)).indexed and not list(path.glob("*.repair"))


def test_the_figures_of_a_repaired_episode_come_from_capture_stamps(tmp_path):
    """In simulation messages are published by the wall's clock and stamped by the world's."""
    bag, second = messages.bag(), 1_000_000_000
    path = tmp_path / "e"
    with EpisodeWriter(path, EpisodeInfo("e", simulated=True)) as writer:
        for k in range(30):
            stamp = second + k * factories.STEP_NS
            cdr = messages.serialize(bag.pose_stamped(stamp, "base", factories.tcp_at(Recipe(), 0)))
            writer.write("/arm/tcp_pose", cdr, stamp + 1_000_000, time.time_ns())
            text = messages.serialize(bag.text("{}"))
            writer.write("/simulation/events", text, stamp + 3_000_000, time.time_ns())
        recorded = writer.streams["/arm/tcp_pose"].summary()
        writer.flush()
        writer._bag.close()
        writer._closed = True
    repair(path)
    streams = read_episode_file(path).statistics["streams"]
    assert streams["/arm/tcp_pose"] == recorded
    assert (recorded["expected"], recorded["rate_hz"], recorded["mean_delay_ms"]) == (30, 25.0, 1.0)
    assert streams["/simulation/events"]["mean_delay_ms"] == 0.0, "without a stamp: as logged"


@pytest.mark.parametrize("room", ["too little", "used up meanwhile"])
def test_a_disk_without_room_leaves_everything_as_it_was(whole, tmp_path, monkeypatch, room):
    path = shutil.copytree(whole, tmp_path / "e")
    cut(path, 60_000)
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    if room == "too little":
        usage = type(shutil.disk_usage("/"))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 50_000))
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(BagWriter, "write", full)
    with pytest.raises(EpisodeError, match="room") as caught:
        repair(path)
    assert str(path) in str(caught.value)
    assert before == {f.name: f.read_bytes() for f in path.iterdir()}
    monkeypatch.undo()
    assert repair(path).changed


def test_damage_inside_a_finished_recording_is_said_by_a_repair(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "e")
    with open(find_bag(path), "r+b") as stream:
        stream.seek(60_000)
        stream.write(b"\xff" * 16)
    before = find_bag(path).read_bytes()
    with pytest.raises(EpisodeError, match=r"checksum.*damaged since: restore it"):
        repair(path)
    assert find_bag(path).read_bytes() == before
