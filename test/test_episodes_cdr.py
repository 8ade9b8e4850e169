"""Columns equal messages read one by one, for every type and shape, and refuse what is neither."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from rosbags.serde import SerdeError

from dexpie_ros import messages
from dexpie_ros.episodes.cdr import CdrError, read_columns

STORE = messages.bag_typestore()
BAG = messages.bag()
KIND = "sensor_msgs/msg/JointState"


def joint_state(names, values, velocities, frame="", stamp=5):
    return BAG.joint_state(stamp, names, np.array(values), np.array(velocities), None, frame)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.text(max_size=5).filter(lambda t: "\0" not in t), max_size=3),
            st.integers(0, 4),
            st.text(max_size=9).filter(lambda t: "\0" not in t),
            st.integers(0, 2**40),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_columns_equal_messages(rows):
    rng = np.random.default_rng(0)
    sent = [
        joint_state(names, rng.normal(size=n), rng.normal(size=4 - n), frame, stamp)
        for names, n, frame, stamp in rows
    ]
    columns = read_columns(STORE, KIND, [messages.serialize(m) for m in sent])
    assert sorted(r for g in columns.groups for r in g.rows.tolist()) == list(range(len(sent)))
    seconds = columns.scalar("header.stamp.sec", np.int64)
    assert seconds.tolist() == [m.header.stamp.sec for m in sent]
    for group in columns.groups:
        for path in ("position", "velocity"):
            for row, values in zip(group.rows, group.values(path)):
                assert np.array_equal(values, getattr(sent[row], path))
        for (frame,), found in group.texts(["header.frame_id"]):
            assert all(sent[row].header.frame_id == frame for row in found)
        fields = [f"name.{k}" for k in range(group.counts["name"])]
        for names, found in group.texts(fields):
            assert all(sent[row].name == list(names) for row in found)


def test_nested_messages_and_sequences_of_messages():
    from factories import Recipe, control_step

    sent = [BAG.control_step(control_step(Recipe(human=((2, 4),)), k)) for k in range(6)]
    kind = "dexpie_msgs/msg/ControlStep"
    columns = read_columns(STORE, kind, [messages.serialize(m) for m in sent])
    (group,) = columns.groups
    assert group.counts["upcoming"] == 1
    assert np.array_equal(
        columns.table(["upcoming.0.hand"]), np.stack([m.upcoming[0].hand for m in sent])
    )
    assert columns.scalar("has_human", np.uint8).tolist() == [0, 0, 1, 1, 0, 0]
    y = columns.scalar("command.tcp.orientation.y", np.float64)
    assert y.tolist() == [m.command.tcp.orientation.y for m in sent]
    with pytest.raises(CdrError, match=r"no field upcoming\.3\.hand"):
        columns.table(["upcoming.3.hand"])


def test_rubbish_that_rclpy_leaves_behind_a_message_is_ignored_and_no_more():
    data = messages.serialize(joint_state(["a"], [1.0], [2.0]))
    assert read_columns(STORE, KIND, [data + b"\x7f" * 8]).table(["position"])[0, 0] == 1.0
    with pytest.raises(CdrError, match="bytes where the message has"):
        read_columns(STORE, KIND, [data + b"\x7f" * 9])


def read_everything(data, other):
    """Positions and texts of the first message, or None if it is refused."""
    try:
        columns = read_columns(STORE, KIND, [data, other])
        group = next(g for g in columns.groups if 0 in g.rows)
        fields = ["header.frame_id", *(f"name.{k}" for k in range(group.counts["name"]))]
        texts = next(words for words, rows in group.texts(fields) if 0 in rows)
        return group.values("position")[group.rows.tolist().index(0)], texts
    except CdrError:
        return None


@pytest.mark.parametrize("at", range(4, 90, 2))
def test_flipped_bytes_are_refused_or_read_as_rosbags_reads_them(at):
    good = messages.serialize(joint_state(["ab", "c"], [1.0, 2.0], [3.0], "base"))
    bad = bytearray(good)
    bad[at % len(bad)] ^= 0xFF
    mine = read_everything(bytes(bad), good)
    try:
        theirs = STORE.deserialize_cdr(bytes(bad), KIND)
    except SerdeError:
        assert mine is None
        return
    assert mine is not None
    assert np.array_equal(mine[0], theirs.position, equal_nan=True)
    assert mine[1] == (theirs.header.frame_id, *theirs.name)


def test_thousands_of_shapes_end_in_an_error_and_not_in_hours():
    data = [
        messages.serialize(joint_state(["x" * (k % 97)], [0.0] * (k % 89), [])) for k in range(9000)
    ]
    with pytest.raises(CdrError, match="different shapes"):
        read_columns(STORE, KIND, data)


def test_nothing_and_too_little():
    assert read_columns(STORE, KIND, []).length == 0
    for data in (b"", b"\0\1", b"\0\1\0\0", b"\0\0\0\0" + bytes(60), b"\0\3\0\0" + bytes(60)):
        with pytest.raises(CdrError):
            read_columns(STORE, KIND, [data])
