"""The glove client over ZMQ against the emulator; its parser; stored calibrations."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from emulated import eventually, needs, repeat_without_leak

from dexpie_ros import geometry
from dexpie_ros.config import ConfigError
from dexpie_ros.control.retargeting import ERGONOMICS, LinearRetargeting, RetargetingConfig
from dexpie_ros.devices import calibration, manus_glove
from dexpie_ros.devices.device import Backoff, Level
from dexpie_ros.devices.inspire_hand import InspireConfig
from dexpie_ros.devices.manus_glove import (
    FreezeDetector,
    GloveError,
    ManusConfig,
    ManusGlove,
    parse_json,
    parse_message,
)
from dexpie_ros.emulators.peer import Emulator


@pytest.fixture(scope="module")
def peer():
    needs("zmq")
    with Emulator("manus", "--port", "0") as emulator:
        yield emulator


@pytest.fixture
def emulator(peer):
    yield peer
    peer.ask("plug")
    for fault in ("silence", "freeze"):
        peer.ask(fault, on=False)
    peer.ask("missing", names=[])
    peer.ask("sides", sides=["right"])
    peer.ask("garbage")
    peer.ask("hold")


def make(emulator, **changes):
    settings = ManusConfig(**({"endpoint": emulator.ready["endpoint"]} | changes))
    return ManusGlove(settings, backoff=Backoff(0.02, 0.05))


@pytest.fixture
def glove(emulator):
    glove = make(emulator)
    glove.start()
    eventually(lambda: glove.newest() is not None, what="first sample")
    yield glove
    glove.stop()


def test_values_by_canonical_name_with_arrival_stamps(glove):
    sample = glove.newest()
    assert set(sample.ergonomics) == set(ERGONOMICS)
    assert sample.side == "right"
    assert abs(time.time_ns() - sample.time_ns) < 1e9
    assert glove.status().level is Level.OK
    assert LinearRetargeting()(sample.ergonomics).shape == (6,)
    count = glove.samples.count
    time.sleep(0.5)
    assert glove.samples.count - count > 20  # nominal 60


@pytest.mark.parametrize(
    ("fault", "arguments", "words"),
    [
        ("freeze", {"on": True}, "frozen"),
        ("silence", {"on": True}, "no sample for"),
        ("garbage", {"text": "{]"}, "not a glove message"),
        ("sides", {"sides": ["Invalid"]}, "neither left nor right"),
        ("missing", {"names": list(ERGONOMICS)}, "no ergonomics"),
    ],
)
def test_faults_make_it_stale_and_say_why(glove, emulator, fault, arguments, words):
    emulator.ask(fault, **arguments)
    eventually(lambda: glove.status().level is Level.STALE and words in glove.status().message)
    count = glove.samples.count
    time.sleep(0.1)
    assert glove.samples.count == count
    for end, values in (
        ("freeze", {"on": False}), ("silence", {"on": False}), ("garbage", {}),
        ("sides", {"sides": ["right"]}), ("missing", {"names": []}),
    ):  # fmt: skip
        emulator.ask(end, **values)
    eventually(lambda: glove.status().level is Level.OK, what="glove back")


def test_missing_values_are_named(glove, emulator):
    emulator.ask("missing", names=["IndexMCPStretch"])
    eventually(lambda: glove.status().level is Level.WARN)
    assert glove.status().message == "missing: IndexMCPStretch"


def test_the_other_hand_is_not_taken_for_this_one(emulator):
    emulator.ask("sides", sides=["left"])
    glove = make(emulator)
    glove.start()
    eventually(lambda: "only the other hand" in glove.status().message)
    assert glove.newest() is None
    emulator.ask("sides", sides=["left", "right"])
    eventually(lambda: glove.newest() is not None)
    glove.stop()


def test_twenty_restarts_of_the_publisher_without_leak(glove, emulator):
    def once():
        emulator.ask("unplug")
        emulator.ask("plug")
        count = glove.samples.count
        assert glove.wait(count + 1, 60.0) is not None

    repeat_without_leak(once, files=4)


def test_twenty_new_subscriptions_without_leak(glove, emulator, monkeypatch):
    """After a long silence the glove's socket is made anew, with a context and threads of zmq's."""
    monkeypatch.setattr(manus_glove, "RECONNECT_AFTER", 0.05)

    def once():
        losses = glove.losses
        emulator.ask("silence")
        eventually(lambda: glove.losses > losses, 60.0, "loss noticed")
        emulator.ask("silence", on=False)
        eventually(lambda: glove.status().level is Level.OK, 60.0, "glove back")

    repeat_without_leak(once, files=12)  # while it connects a context has more


def test_long_silence_is_an_error_that_ends(glove, emulator, monkeypatch):
    monkeypatch.setattr(manus_glove, "RECONNECT_AFTER", 0.5)
    emulator.ask("silence")
    eventually(lambda: glove.status().level is Level.ERROR, 10.0)
    assert "dongle" in glove.status().message
    emulator.ask("silence", on=False)
    eventually(lambda: glove.status().level is Level.OK)


def message(side="Right", **values):
    entries = [SimpleNamespace(type=name, value=value) for name, value in values.items()]
    return SimpleNamespace(side=side, ergonomics=entries, ergonomics_count=99)


def test_ros_messages_go_through_the_same_parser():
    glove = ManusGlove(ManusConfig(frozen_after=0.1))
    sample = glove.offer(message(ThumbMCPSpread=1.5, IndexSpread=2.0), 123)
    assert sample.time_ns == 123
    assert sample.ergonomics == {"ThumbMCPSpread": 1.5, "IndexSpread": 2.0}
    assert glove.offer(message("left", ThumbMCPSpread=1.0)) is None
    assert glove.offer(SimpleNamespace()) is None
    assert glove.malformed == 1
    older = message(RightFingerIndexMCPSpread=3.0, LeftFingerThumbMCPSpread=4.0, Unknown=5.0)
    assert parse_message(older) == ("right", {"IndexSpread": 3.0})


def test_a_frozen_glove_gives_no_samples():
    freeze = FreezeDetector(0.5)
    assert not freeze.frozen(10.0)
    assert not freeze.repeated({"a": 1.0}, 10.0)
    assert freeze.repeated({"a": 1.0}, 10.5) and not freeze.frozen(10.5)
    assert freeze.frozen(10.51)
    assert not freeze.repeated({"a": 1.0000001}, 10.6) and not freeze.frozen(10.6)
    glove = ManusGlove(ManusConfig())
    assert glove.offer(message(IndexSpread=2.0)) is not None
    assert glove.offer(message(IndexSpread=2.0)) is None, "no news"
    assert glove.offer(message(IndexSpread=2.000001)) is not None
    assert glove.samples.count == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not a glove message"),
        (b"[]", "not a glove message"),
        (b'{"side": "right", "ergonomics": [{"type": "IndexSpread"}]}', "value"),
        (b'{"side": "right", "ergonomics": [{"type": 3, "value": 1}]}', "no name and number"),
        (b'{"side": "right", "ergonomics": [{"type": "IndexSpread", "value": "x"}]}', "no number"),
        (b'{"side": "right", "ergonomics": [{"type": "IndexSpread", "value": NaN}]}', "no angle"),
        (b'{"side": "right", "ergonomics": [{"type": "IndexSpread", "value": 1e9}]}', "no angle"),
        (b'{"side": null, "ergonomics": []}', "neither left nor right"),
        (b"[" * 100_000, "not a glove message"),
    ],
)
def test_malformed_messages_say_what_is_wrong(text, words):
    with pytest.raises(GloveError, match=words):
        parse_json(text)


def test_fuzzed_json_only_raises_glove_error():
    rng = np.random.default_rng(8)
    entries = [{"type": name, "value": 10.0} for name in ERGONOMICS[:4]]
    good = json.dumps({"side": "Right", "ergonomics": entries}).encode()
    accepted = 0
    for _ in range(12_000):
        data = bytearray(good)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        if rng.random() < 0.1:
            data = data[: rng.integers(len(data))]
        try:
            side, values = parse_json(bytes(data))
            accepted += 1
            assert side in ("left", "right")
            assert all(np.isfinite(v) for v in values.values())
        except GloveError:
            pass
    assert 0 < accepted < 12_000


def samples(value, count=20, noise=0.3):
    rng = np.random.default_rng(9)
    return [{name: value + noise * rng.normal() for name in ERGONOMICS} for _ in range(count)]


def test_glove_calibration_is_stored_and_read_back(tmp_path):
    made = calibration.calibrate_glove(samples(5.0), samples(70.0))
    path = tmp_path / "glove.yaml"
    calibration.save(path, "glove", "right", made)
    assert calibration.load(path, "glove", RetargetingConfig, "right") == made
    assert made.index.open_deg == pytest.approx(5.0, abs=0.3)
    with pytest.raises(ConfigError, match="was made for 'right', not 'left'"):
        calibration.load(path, "glove", RetargetingConfig, "left")
    with pytest.raises(ConfigError, match="is a glove calibration, a hand one is wanted"):
        calibration.load(path, "hand", calibration.HandRange)
    path.write_text(path.read_text().replace("open_deg", "opened"))
    with pytest.raises(ConfigError, match=r"glove\.yaml"):
        calibration.load(path, "glove", RetargetingConfig)


def test_glove_calibrations_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="less than 10 deg"):
        calibration.calibrate_glove(samples(5.0), samples(12.0))
    with pytest.raises(ConfigError, match="held still"):
        calibration.calibrate_glove(samples(5.0, noise=10.0), samples(70.0))
    with pytest.raises(ConfigError, match="3 samples of the open hand"):
        calibration.calibrate_glove(samples(5.0, 3), samples(70.0))
    bare = [{"IndexMCPStretch": 5.0}] * 20
    with pytest.raises(ConfigError, match="PinkyMCPStretch"):
        calibration.calibrate_glove(bare, bare)


def test_tracker_mounting_from_two_turns():
    rng = np.random.default_rng(10)
    for _ in range(20):
        mounting = geometry.rotation_exp(rng.normal(size=3))  # tracker from end effector
        start = geometry.make_pose(geometry.rotation_exp(rng.normal(size=3)), np.zeros(3))

        def turned(axis, angle, start=start, mounting=mounting):
            wobble = geometry.rotation_exp(0.02 * rng.normal(size=3))
            turn = mounting @ geometry.rotation_exp(np.array(axis) * angle) @ mounting.T
            return geometry.make_pose(start[:3, :3] @ turn @ wobble, rng.normal(size=3))

        x, z = turned([1.0, 0, 0], 1.5), turned([0, 0, 1.0], 1.2)
        made = calibration.calibrate_tracker(start, x, z)
        found = geometry.quaternion_to_matrix(made.mounting_quaternion)
        assert geometry.rotation_angle(found, mounting) < 0.08
        with pytest.raises(ConfigError, match="about x was only"):
            calibration.calibrate_tracker(start, turned([1.0, 0, 0], 0.3), z)
        with pytest.raises(ConfigError, match="deg apart"):
            calibration.calibrate_tracker(start, x, turned([1.0, 0.1, 0], 1.2))


def test_hand_range_is_measured_and_applied(tmp_path):
    opened = np.tile([1000, 998, 1000, 1000, 1000, 886], (10, 1))
    closed = np.tile([45, 47, 0, 2, 0, 0], (10, 1))
    made = calibration.calibrate_hand(opened, closed)
    calibration.save(tmp_path / "hand.yaml", "hand", "right", made)
    again = calibration.load(tmp_path / "hand.yaml", "hand", calibration.HandRange)
    settings = calibration.applied(InspireConfig(), again)
    assert settings.raw_open[5] == 886
    assert settings.raw_closed[0] == 45
    closed[:, 3] = 900
    with pytest.raises(ConfigError, match="index moved from 1000 to 900"):
        calibration.calibrate_hand(opened, closed)
    with pytest.raises(TypeError, match="TrackerMounting"):
        calibration.save(tmp_path / "x.yaml", "tracker", "T", made)
