"""The recorder's core: pre-roll, queue, warnings, full disk."""

import json
import re
import time
from dataclasses import replace

import factories
import numpy as np
import pytest

from dexpie_ros import messages
from dexpie_ros.contract import recorded_topics
from dexpie_ros.control.types import ARM_JOINTS, HAND_JOINTS
from dexpie_ros.episodes import (
    EpisodeError,
    EpisodeInfo,
    EpisodeWriter,
    WriterConfig,
    read_episode,
)
from dexpie_ros.episodes import recording as module
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.decoding import header_stamp_ns
from dexpie_ros.episodes.episode_file import read_episode_file, write_episode_file
from dexpie_ros.episodes.recording import Recording, RecordingConfig
from dexpie_ros.episodes.repair import repair
from dexpie_ros.episodes.statistics import StreamStatistics
from dexpie_ros.episodes.watch import Watch

T0 = factories.START_NS
STEP = 40_000_000
SETTINGS = RecordingConfig(preroll_s=0.2, minimum_free_gb=0.0, writer=WriterConfig(durable=False))


def pose(k: int) -> tuple[str, bytes, int, int]:
    stamp = T0 + k * STEP
    message = messages.bag().pose_stamped(
        stamp, "base", factories.tcp_at(factories.Recipe(), k / 25)
    )
    return "/arm/tcp_pose", messages.serialize(message), stamp, stamp


def state(k: int) -> tuple[str, bytes, int, int]:
    message = messages.bag().session_state(
        T0 + k * STEP, phase=1, episode_id=f"s{k}", kind="", task="", stage="", seed=0,
        policy_id="", pair_id="", directory="", recorded=0,
    )  # fmt: skip
    return "/session/state", messages.serialize(message), T0 + k * STEP, T0 + k * STEP


def until(true, patience=60.0):
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.02)


def recorded(path, topic):
    return [(t - T0) // STEP for t in BagReader(find_bag(path)).messages[topic].log_time_ns]


def stamped(path, topic):
    payloads = BagReader(find_bag(path)).messages[topic].payloads
    return [(header_stamp_ns(cdr) - T0) // STEP for cdr in payloads]


def make(settings=SETTINGS, **arguments):
    return Recording(recorded_topics("none"), settings, **arguments)


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


def sample(k: int, topic: str, cdr: bytes) -> tuple[str, bytes, int, int]:
    return topic, cdr, T0 + k * STEP, T0 + k * STEP


def all_streams(k: int, tick: int = 0) -> list[tuple[str, bytes, int, int]]:
    """What a robot says at step k."""
    bag, recipe, stamp = messages.bag(), factories.Recipe(), T0 + k * STEP
    step = replace(factories.control_step(recipe, 0), time_ns=stamp, tick=tick or 100 + k)
    arm, hand = factories.tcp_at(recipe, k / 25), factories.hand_at(recipe, k / 25)
    made = (
        ("/arm/joint_states", bag.joint_state(stamp, ARM_JOINTS, np.zeros(6), np.zeros(6))),
        ("/hand/joint_states", bag.joint_state(stamp, HAND_JOINTS, hand, None, np.zeros(6))),
        ("/arm/tcp_pose", bag.pose_stamped(stamp, "base", arm)),
        ("/simulation/events", bag.text(json.dumps({"time_ns": stamp, "note": f"step {k}"}))),
        ("/control/step", bag.control_step(step)),
    )
    return [sample(k, topic, messages.serialize(message)) for topic, message in made]


def test_steps_before_the_start_are_in_the_bag_but_not_in_the_episode(tmp_path):
    """The arbiter that ticked before the episode was another one: its counter stood elsewhere."""
    recording = make()
    for k in range(10):
        for item in all_streams(k, tick=9000 + k):
            recording.receive(*item)
    recording.start(tmp_path / "a", EpisodeInfo("a"), start_ns=T0 + 10 * STEP)
    for k in range(10, 30):
        for item in all_streams(k):
            recording.receive(*item)
    recording.end("success")
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
    recording.start(tmp_path / "a", EpisodeInfo("a"), start_ns=T0 + 10 * STEP)
    for k in range(10, 30):
        for item in all_streams(k):
            recording.receive(*item)
    recording.end("success")
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


def test_what_runs_short_is_said_before_it_is_gone(tmp_path, monkeypatch):
    said = []
    settings = replace(SETTINGS, minimum_free_gb=5.0)
    usage = type(module.shutil.disk_usage("/"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**12, 0, 8 * 10**9))
    recording = make(settings, warn=said.append)
    recording.start(tmp_path / "a", EpisodeInfo("a", simulated=True))
    recording.receive(*pose(0))
    until(lambda: said)
    warning = "8.00 GB left on the disk; below 5 GB recording ends"
    assert said[0] == warning and not recording.error
    until(lambda: recording.troubles)
    assert recording.troubles[0] == warning
    recording.end()


def test_a_silent_stream_is_reported_while_it_can_be_helped(tmp_path):
    said = []
    recording = make(warn=said.append)
    recording.start(tmp_path / "a", EpisodeInfo("a", simulated=True), start_ns=T0)
    recording.receive(*pose(0))
    recording.receive(*state(100))
    until(lambda: recording.troubles)
    recording.end("success")
    # Those that never spoke too; what belongs to the operator in one line.
    missing = ("/arm/joint_states", "/hand/joint_states", "/control/command", "/control/step",
               "/simulation/state")  # fmt: skip
    teleop = "/teleop/tracker, /teleop/glove, /teleop/command, /teleop/alignment"
    assert sorted(m for m in said if "any topic" not in m) == sorted(
        [
            "/arm/tcp_pose: silent for 4.0 s",
            *(f"{name}: nothing yet, 4.0 s after the start" for name in missing),
            f"nothing on {teleop}: no teleoperation in this episode?",
        ]
    )
    values = json.loads((tmp_path / "a/episode.json").read_text())
    assert values["statistics"]["warnings"] == said


def test_that_everything_is_silent_is_said_in_one_line(tmp_path):
    said = []
    recording = make(warn=said.append)
    recording.start(tmp_path / "a", EpisodeInfo("a", simulated=True), start_ns=T0)
    for topic, cdr, log, publish in (pose(0), state(0)):
        recording.receive(topic, cdr, log, publish)
    until(lambda: said)
    recording.end("aborted")
    assert len(said) == 1 and re.fullmatch(r"no message on any topic for \d+\.\d s", said[0])
    assert read_episode_file(tmp_path / "a").statistics["warnings"] == said


def test_what_never_spoke_is_late_after_two_seconds_and_devices_of_the_operator_once(tmp_path):
    with EpisodeWriter(tmp_path / "a", EpisodeInfo("a", simulated=True)) as writer:
        watch = Watch(writer, T0)
        assert watch.look(T0 + 2_000_000_000, 0) == []
        looks = [watch.look(T0 + seconds * 1_000_000_000, 0) for seconds in (3, 4, 6)]
        assert "/control/step: nothing yet, 3.0 s after the start" in looks[0]
        assert sum("/teleop/" in text for text in looks[0]) == 1
        # Once a second by contract: it is given five.
        assert looks[1:] == [[], ["/diagnostics: nothing yet, 6.0 s after the start"]]
        assert "/control/step" in watch.wrong and "/teleop/tracker" not in watch.wrong
        writer.write(*pose(150))
        assert watch.look(T0 + 150 * STEP, 0) == [] and "/arm/tcp_pose" not in watch.wrong


def test_an_incident_is_reported_once_and_a_new_one_again(tmp_path):
    with EpisodeWriter(tmp_path / "a", EpisodeInfo("a", simulated=True)) as writer:
        watch = Watch(writer)
        looks = []
        for k in (0, 1, 5, 9, 10, 11, 14):
            writer.write(*pose(k))
            looks.append(watch.look(T0 + k * STEP, queue_dropped=0))
        assert looks == [
            [], [], ["/arm/tcp_pose: 3 messages lost within a second"], [], [], [],
            ["/arm/tcp_pose: 2 messages lost within a second"],
        ]  # fmt: skip
        assert watch.look(T0 + 17 * STEP, 3) == ["3 messages dropped: the disk is too slow"]
        assert watch.look(T0 + 24 * STEP, 3) == ["/arm/tcp_pose: silent for 0.4 s"]
        assert watch.look(T0 + 50 * STEP, 3) == []


def test_a_stream_that_is_slow_is_told_from_one_that_loses_messages(tmp_path):
    """The arm says 125 Hz by contract; here it is set to 25 Hz, and loses two messages."""
    with EpisodeWriter(tmp_path / "a", EpisodeInfo("a")) as writer:
        watch = Watch(writer)
        looks = []
        for k in (*range(20), *range(22, 40)):
            writer.write(*pose(k))
            looks += watch.look(T0 + k * STEP, queue_dropped=0)
        writer.finish("success")
    slow = "25.0 Hz instead of 125 Hz"
    # Until its own rate is known, every gap looks like a loss.
    assert looks == [
        "/arm/tcp_pose: 4 messages lost within a second",
        f"/arm/tcp_pose: {slow}",
        "/arm/tcp_pose: 2 messages lost within a second",
    ]
    figures = read_episode_file(tmp_path / "a").statistics["streams"]["/arm/tcp_pose"]
    assert (figures["slow"], figures["dropped"], figures["expected"]) == (slow, 2, 40)


def test_messages_in_the_wrong_order_are_no_losses():
    stream = StreamStatistics(period_ns=STEP)
    for k in (0, 1, 2, 5, 4, 3, 6, 7, 9):
        stream.add(k * STEP, k * STEP, 1)
    figures = stream.summary()
    assert figures["out_of_order"] == 2 and figures["received"] == 9 and figures["expected"] == 10
    # 3 and 4 were missing when 5 came; that they came after all does not excuse the writer.
    assert figures["dropped"] == 3


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
