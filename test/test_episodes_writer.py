"""Bags and descriptions as they lie on disk."""

import json

import factories
import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from dexpie_ros import messages
from dexpie_ros.contract import recorded_topics
from dexpie_ros.episodes import EpisodeError, EpisodeInfo, EpisodeWriter, WriterConfig
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.repair import repair

FAST = WriterConfig(durable=False)


def test_rosbags_opens_the_bag_and_gives_back_every_message(tmp_path):
    path = factories.write_episode(tmp_path / "a", factories.Recipe(steps=7, images=True))
    with AnyReader([path]) as bag:
        steps = [
            messages.read_control_step(bag.deserialize(raw, c.msgtype))
            for c, _, raw in bag.messages()
            if c.topic == "/control/step"
        ]
        assert bag.message_count == 7 * (5 + 2)
    expected = [factories.control_step(factories.Recipe(steps=7), k) for k in range(7)]
    assert [s.tick for s in steps] == list(range(7))
    assert np.array_equal(steps[3].command.tcp.position, expected[3].command.tcp.position)
    with Reader(path) as bag:
        by_topic = {c.topic: c for c in bag.connections}
        step = by_topic["/control/step"]
        assert step.digest == messages.bag_typestore().hash_rihs01("dexpie_msgs/msg/ControlStep")
        assert step.ext.offered_qos_profiles[0].depth == 100
        assert (
            by_topic["/session/state"].ext.offered_qos_profiles[0].durability.name
            == "TRANSIENT_LOCAL"
        )


def test_names_times_and_metadata_are_those_of_ros2_bag(tmp_path):
    path = factories.write_episode(tmp_path / "bag", factories.Recipe(steps=3))
    assert (path / "bag_0.mcap").is_file()
    info = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["version"] == 8 and info["relative_file_paths"] == ["bag_0.mcap"]
    assert info["message_count"] == 15
    assert info["starting_time"]["nanoseconds_since_epoch"] == factories.START_NS + 1_000_000
    assert info["duration"]["nanoseconds"] == 80_000_000
    assert info["custom_data"]["episode_id"] == "bag"
    qos = info["topics_with_message_count"][0]["topic_metadata"]["offered_qos_profiles"]
    assert isinstance(qos, str) and yaml.safe_load(qos)[0]["reliability"] == 1
    stream = BagReader(find_bag(path)).messages["/control/step"]
    assert stream.publish_time_ns[1] == factories.START_NS + 40_000_000
    assert stream.log_time_ns[1] == factories.START_NS + 41_000_000


def test_the_description_says_how_far_the_recording_came(tmp_path):
    writer = EpisodeWriter(tmp_path / "e", EpisodeInfo("e", simulated=True), settings=FAST)
    assert read_episode_file(tmp_path / "e").status == "recording"
    step = messages.bag().control_step(factories.control_step(factories.Recipe(human=((0, 9),)), 1))
    writer.write("/control/step", messages.serialize(step), 10, 5)
    done = writer.finish("failure", "tipped", {"interventions": 2})
    content = read_episode_file(tmp_path / "e")
    assert (content.status, content.info) == ("finished", done)
    assert (content.info.outcome, content.info.cause) == ("failure", "tipped")
    assert (content.steps, content.human_steps, content.messages) == (1, 1, 1)
    assert content.statistics["interventions"] == 2
    assert "/arm/tcp_pose" in content.statistics["silent"]
    with pytest.raises(EpisodeError, match="already closed"):
        writer.finish()


def test_leaving_the_block_by_an_error_keeps_the_data_as_aborted(tmp_path):
    with (
        pytest.raises(RuntimeError),
        EpisodeWriter(tmp_path / "e", EpisodeInfo("e"), settings=FAST),
    ):
        raise RuntimeError("arm lost")
    content = read_episode_file(tmp_path / "e")
    assert (content.status, content.info.outcome) == ("aborted", "aborted")
    assert content.info.cause == "RuntimeError: arm lost"
    with Reader(tmp_path / "e") as bag:
        assert bag.message_count == 0


def test_nothing_is_ever_overwritten(tmp_path):
    path = factories.write_episode(tmp_path / "a", factories.Recipe(steps=2))
    with pytest.raises(EpisodeError, match="not empty"):
        EpisodeWriter(path, EpisodeInfo("a"))


def test_discard_leaves_nothing(tmp_path):
    writer = EpisodeWriter(tmp_path / "e", EpisodeInfo("e"), settings=FAST)
    writer.discard()
    assert not (tmp_path / "e").exists()


def test_bad_values_are_refused_before_they_reach_the_disk(tmp_path):
    with pytest.raises(ValueError, match="pattern"):
        EpisodeInfo("../escape")
    writer = EpisodeWriter(tmp_path / "e", EpisodeInfo("e"), recorded_topics("none"), FAST)
    with pytest.raises(EpisodeError, match="expected success"):
        writer.finish("won")
    with pytest.raises(KeyError):
        writer.write("/nowhere", b"\0\1\0\0", 1, 1)
    writer.finish()


def test_mcap_tools_open_the_bag(tmp_path):
    path = factories.write_episode(tmp_path / "a", factories.Recipe(steps=9))
    with open(find_bag(path), "rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        assert reader.get_summary().statistics.message_count == 45
        times = [message.log_time for _, _, message in reader.iter_messages()]
        records = {record.name for record in reader.iter_metadata()}
    assert times == sorted(times) and len(times) == 45
    assert records == {"dexpie_episode", "rosbag2"}


def test_a_disk_that_fills_at_the_end_leaves_a_bag_to_repair(tmp_path, monkeypatch):
    writer = EpisodeWriter(tmp_path / "e", EpisodeInfo("e", simulated=True), settings=FAST)
    step = messages.bag().control_step(factories.control_step(factories.Recipe(), 0))
    writer.write("/control/step", messages.serialize(step), 10, 5)
    writer.flush()
    monkeypatch.setattr(
        writer._bag._mcap, "finish", lambda: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(EpisodeError, match="make room"):
        writer.finish("success")
    assert read_episode_file(tmp_path / "e").status == "recording"
    assert repair(tmp_path / "e").changed
    assert read_episode_file(tmp_path / "e").steps == 1


def test_statistics_count_what_is_missing(tmp_path):
    info = EpisodeInfo("e", simulated=True)
    writer = EpisodeWriter(tmp_path / "e", info, recorded_topics("none"), FAST)
    bag = messages.bag()
    for k in (0, 1, 2, 5, 6):
        stamp = factories.START_NS + k * 40_000_000
        pose = bag.pose_stamped(stamp, "base", factories.tcp_at(factories.Recipe(), k / 25))
        writer.write("/arm/tcp_pose", messages.serialize(pose), stamp + 3_000_000, stamp)
    assert writer.late(stamp + 300_000_000) == ["/arm/tcp_pose"]
    assert writer.late(stamp + 100_000_000) == []
    writer.finish()
    figures = json.loads((tmp_path / "e/episode.json").read_text())["statistics"]["streams"]
    pose = figures["/arm/tcp_pose"]
    assert (pose["received"], pose["expected"], pose["dropped"]) == (5, 7, 2)
    assert pose["max_gap_ms"] == 120 and pose["mean_delay_ms"] == 3
    assert pose["rate_hz"] == pytest.approx(4 / 0.24, abs=1e-3)
