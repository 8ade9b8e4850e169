"""What is said of the streams while an episode is recorded."""

import json
import re
from dataclasses import replace

from recording_rig import (
    SETTINGS,
    STEP,
    T0,
    make,
    pose,
    state,
    until,
)

from dexpie_ros.episodes import (
    EpisodeInfo,
    EpisodeWriter,
)
from dexpie_ros.episodes import recording as module
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.statistics import StreamStatistics
from dexpie_ros.episodes.watch import Watch


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
