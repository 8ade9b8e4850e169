"""The recorder's core: pre-roll, queue, warnings, full disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
from recording_rig import (
    SETTINGS,
    STEP,
    T0,
    all_streams,
    make,
    pose,
    recorded,
    stamped,
    state,
    until,
)

from dexpie_ros.episodes import (
    EpisodeError,
    EpisodeInfo,
    WriterConfig,
    read_episode,
)
from dexpie_ros.episodes import recording as module
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode_file import read_episode_file, write_episode_file
from dexpie_ros.episodes.recording import RecordingConfig
from dexpie_ros.episodes.repair import repair


def test_the_moment_before_the_start_is_in_the_bag(tmp_path):
    recording = make()
    recording.receive(*state(0))
    for k in range(1, 50):
        recording.receive(*pose(k))
    recording.start(tmp_path / "a", EpisodeInfo("a", simulated=True))
    assert recording.recording.episode_id == "a"
    for k in range(50, 60):
        recording.receive(*pose(k))
    recording.end("success")
    # 0.2 s before the start, and the latched state, however old it is: it makes the bag no longer.
    assert recorded(tmp_path / "a", "/arm/tcp_pose") == list(range(45, 60))
    assert recorded(tmp_path / "a", "/session/state") == [45]
    assert stamped(tmp_path / "a", "/session/state") == [0]
    assert read_episode_file(tmp_path / "a").duration_ns == 14 * STEP
    # Between episodes the pre-roll fills again; nothing of the last one comes twice.
    for k in range(60, 63):
        recording.receive(*pose(k))
    recording.start(tmp_path / "b", EpisodeInfo("b"))
    recording.end()
    assert recorded(tmp_path / "b", "/arm/tcp_pose") == [60, 61, 62]


def test_the_preroll_keeps_to_its_memory(tmp_path):
    recording = make(RecordingConfig(preroll_s=100, preroll_mb=0.001, minimum_free_gb=0))
    size = len(pose(0)[1])
    for k in range(100):
        recording.receive(*pose(k))
    recording.start(tmp_path / "a", EpisodeInfo("a"))
    recording.end()
    assert len(recorded(tmp_path / "a", "/arm/tcp_pose")) == 1000 // size


def record_from_step_10(recording, directory):
    """What came before is pre-roll; twenty steps from there on, a success."""
    recording.start(directory, EpisodeInfo("a"), start_ns=T0 + 10 * STEP)
    for k in range(10, 30):
        for item in all_streams(k):
            recording.receive(*item)
    recording.end("success")


def test_steps_before_the_start_are_in_the_bag_but_not_in_the_episode(tmp_path):
    """The arbiter that ticked before the episode was another one: its counter stood elsewhere."""
    recording = make()
    for k in range(10):
        for item in all_streams(k, tick=9000 + k):
            recording.receive(*item)
    record_from_step_10(recording, tmp_path / "a")
    assert recorded(tmp_path / "a", "/control/step") == list(range(5, 30))
    episode = read_episode(tmp_path / "a")
    assert episode.time_ns.tolist() == [T0 + k * STEP for k in range(10, 30)]
    assert next(json.loads(text)["note"] for _, text in episode.events) == "step 9"
    assert not episode.problems and not episode.partial
    content = read_episode_file(tmp_path / "a")
    assert content.steps == 20 and content.start_ns == T0 + 10 * STEP
    # A copy that was cut off is repaired to the same steps.
    (tmp_path / "b").mkdir()
    start = replace(content, status="recording", steps=0)
    write_episode_file(tmp_path / "b", start)
    data = (tmp_path / "a/a_0.mcap").read_bytes()
    (tmp_path / "b/a_0.mcap").write_bytes(data[: data.rindex(b"dexpie_episode")])
    repair(tmp_path / "b")
    again = read_episode_file(tmp_path / "b")
    assert (again.status, again.steps, again.start_ns) == ("repaired", 20, content.start_ns)
    assert np.array_equal(read_episode(tmp_path / "b").tcp, episode.tcp)


def test_damage_to_the_description_in_the_bag_does_not_move_the_start(tmp_path):
    """What came before it must not become part of the episode: episode.json knows it too."""
    recording = make()
    for k in range(10):
        for item in all_streams(k):
            recording.receive(*item)
    record_from_step_10(recording, tmp_path / "a")
    file = find_bag(tmp_path / "a")
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"start_ns": 1', b'"start_ns": 7'))
    assert file.read_bytes() != data
    episode = read_episode(tmp_path / "a")
    assert episode.time_ns.tolist() == [T0 + k * STEP for k in range(10, 30)]
    (tmp_path / "a/episode.json").unlink()
    with pytest.raises(EpisodeError, match="neither a sound description in the bag nor an episode"):
        read_episode(tmp_path / "a")


def test_an_episode_that_ended_before_the_arbiter_began_says_so(tmp_path):
    recording = make()
    for item in all_streams(0):
        recording.receive(*item)
    recording.start(tmp_path / "a", EpisodeInfo("a"), start_ns=T0 + STEP)
    recording.end("aborted")
    with pytest.raises(EpisodeError, match="1 control steps all lie before the episode's start"):
        read_episode(tmp_path / "a")


def test_of_another_scene_nothing_is_kept_but_the_states(tmp_path):
    recording = make()
    recording.receive(*state(0))
    for k in range(1, 5):
        for item in all_streams(k):
            recording.receive(*item)
    # The scene's first sample arrives before this process' clock has heard of its time.
    (topic, cdr, log, publish) = pose(5)
    recording.receive(topic, cdr, log - STEP, publish)
    recording.start(tmp_path / "a", EpisodeInfo("a"), T0 + 5 * STEP, new_scene=True)
    recording.end("success")
    assert recorded(tmp_path / "a", "/arm/tcp_pose") == [4]
    assert recorded(tmp_path / "a", "/session/state") == [0]
    assert "/control/step" not in read_episode_file(tmp_path / "a").statistics["streams"]


def test_a_clock_that_begins_anew_has_no_moment_before(tmp_path):
    recording = make()
    for k in (100, 101, 3, 4):
        recording.receive(*pose(k))
    recording.start(tmp_path / "a", EpisodeInfo("a"))
    recording.end()
    assert recorded(tmp_path / "a", "/arm/tcp_pose") == [3, 4]


def test_a_full_disk_refuses_the_start_and_ends_the_running_episode(tmp_path, monkeypatch):
    recording = make(RecordingConfig(minimum_free_gb=5, writer=WriterConfig(durable=False)))
    usage = type(module.shutil.disk_usage("/"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**12, 0, 10**9))
    with pytest.raises(EpisodeError, match=r"1\.00 GB free.*make room"):
        recording.start(tmp_path / "a", EpisodeInfo("a"))
    assert recording.recording is None and not (tmp_path / "a").exists()
    monkeypatch.undo()
    said = []
    recording = make(SETTINGS, warn=said.append)
    recording.start(tmp_path / "a", EpisodeInfo("a", simulated=True))
    recording.receive(*pose(0))
    monkeypatch.setattr(
        module, "require_space", lambda *_: (_ for _ in ()).throw(EpisodeError("disk full"))
    )
    until(lambda: recording.error)  # though nothing arrives any more: the disk is watched
    recording.receive(*pose(1))
    assert "disk full" in recording.error and said == ["recording ended early: disk full"]
    recording.end("failure", "disk full")
    assert recorded(tmp_path / "a", "/arm/tcp_pose") == [0]
    assert BagReader(find_bag(tmp_path / "a")).indexed


def test_a_queue_that_is_full_drops_and_counts(tmp_path):
    recording = make(RecordingConfig(preroll_s=0, queue_mb=0, minimum_free_gb=0))
    recording.start(tmp_path / "a", EpisodeInfo("a"))
    for k in range(5):
        recording.receive(*pose(k))
    recording.end()
    assert recording.dropped == 5
    values = json.loads((tmp_path / "a/episode.json").read_text())
    assert values["statistics"]["queue_dropped"] == 5


def test_one_episode_at_a_time(tmp_path):
    recording = make()
    with pytest.raises(EpisodeError, match="no episode"):
        recording.end()
    recording.start(tmp_path / "a", EpisodeInfo("a"))
    with pytest.raises(EpisodeError, match="still recording a"):
        recording.start(tmp_path / "b", EpisodeInfo("b"))
    recording.discard()
    assert not (tmp_path / "a").exists() and recording.recording is None


def test_a_disk_that_goes_away_ends_one_recording_only(tmp_path, monkeypatch):
    recording = make()
    recording.start(tmp_path / "a", EpisodeInfo("a", simulated=True))

    def gone(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "disk_usage", gone)
        until(lambda: recording.error)
        for k in range(3):
            recording.receive(*pose(k))
        until(lambda: recording._waiting == 0)
        assert "Input/output error" in recording.error
        assert recording._thread.is_alive()
    recording.end()
    assert "Input/output" in read_episode_file(tmp_path / "a").statistics["ended_early"]
