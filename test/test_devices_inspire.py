"""The hand client over pymodbus and pyserial against the hand emulator; registers and frames."""

import time

import numpy as np
import pytest
from emulated import eventually, needs, repeat_without_leak

from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.devices import inspire_eb90 as eb90
from dexpie_ros.devices import inspire_hand, inspire_return
from dexpie_ros.devices import inspire_registers as reg
from dexpie_ros.devices.device import Backoff, Level, wait_until
from dexpie_ros.devices.inspire_hand import InspireConfig, InspireHand
from dexpie_ros.emulators import modbus
from dexpie_ros.emulators.peer import Emulator

TRANSPORTS = ["modbus_tcp", "modbus_rtu", "eb90"]


@pytest.fixture(scope="module")
def peer():
    needs("pymodbus")
    needs("serial")
    with Emulator("inspire", "--host", "127.0.0.1", "--port", "0") as emulator:
        yield emulator


@pytest.fixture
def emulator(peer, monkeypatch):
    monkeypatch.setattr(inspire_hand, "SLOW_PERIOD", 0.1)
    monkeypatch.setattr(inspire_hand, "COMMAND_AGE", 0.2)
    peer.ask("line_fault")
    peer.ask("plug")
    peer.ask("hold_object", angles=[-1] * 6)
    yield peer
    peer.ask("line_fault")
    peer.ask("slow")
    peer.ask("plug")
    peer.ask("high_byte_first", on=False)
    for finger in range(6):
        peer.ask("heat", finger=finger, degrees=32)


def make(emulator, transport, **changes):
    ready, patience = emulator.ready, {"timeout": 0.1}
    device = ready["eb90" if transport == "eb90" else "rtu"]
    settings = InspireConfig(
        transport=transport, host=ready["host"], port=ready["port"], device=device,
        **(patience | changes),
    )  # fmt: skip
    return InspireHand(settings, backoff=Backoff(0.02, 0.1))


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture
def hand(emulator, transport):
    hand = make(emulator, transport)
    hand.start()
    eventually(lambda: hand.newest() is not None, what="first sample")
    began = time.monotonic_ns()
    hand.clear_errors()
    eventually(lambda: emulator.events("clear", began), what="errors cleared")
    eventually(lambda: hand.status().level is Level.OK, what="hand ok")
    yield hand
    hand.stop()


def test_openings_are_reached_in_the_order_of_the_fingers(hand):
    goal = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    hand.command(goal)
    eventually(lambda: np.allclose(hand.newest().openings, goal, atol=0.002), 5.0)
    sample = hand.newest()
    assert abs(time.time_ns() - sample.time_ns) < 2e9
    assert sample.force.shape == (6,)
    assert np.allclose(sample.temperature, 32)
    assert set(HAND_JOINTS) <= set(hand.status().values)


def test_writes_only_on_change_and_leaves_nan_fingers_alone(hand, emulator):
    hand.command(np.full(6, 0.5))
    eventually(lambda: np.allclose(hand.newest().openings, 0.5, atol=0.002), 5.0)
    writes = emulator.ask("state")["writes"]
    for _ in range(10):
        hand.command(np.full(6, 0.5))
        time.sleep(0.02)
    assert emulator.ask("state")["writes"] == writes
    hand.command([np.nan, np.nan, np.nan, 0.9, np.nan, np.nan])
    eventually(lambda: abs(hand.newest().openings[3] - 0.9) < 0.002, 5.0)
    assert emulator.events("angles")[-1]["values"] == [-1, -1, -1, 900, -1, -1]
    assert np.allclose(np.delete(hand.newest().openings, 3), 0.5, atol=0.002)


@pytest.mark.parametrize("fault", ["silence", "checksum", "garbage", "refuse"])
def test_line_faults_are_reported_and_survived(hand, emulator, fault):
    emulator.ask("line_fault", kind=fault)
    eventually(lambda: hand.status().level in (Level.ERROR, Level.STALE), 10.0, fault)
    assert hand.failures > 0 or hand.losses > 0
    emulator.ask("line_fault")
    eventually(lambda: hand.status().level is Level.OK, what="hand back")
    count = hand.samples.count
    assert hand.wait(count + 2, 5.0) is not None


def test_late_answers_are_a_silent_line_and_never_pass_for_others(emulator, transport):
    """RTU replies do not say what they answer: angles must not be taken for forces."""
    hand = make(emulator, transport, timeout=0.04)
    samples, put = [], hand.samples.put
    hand.samples.put = lambda sample: (samples.append(sample), put(sample))
    hand.start()
    hand.command(np.ones(6))
    eventually(lambda: hand.newest() is not None and np.all(hand.newest().openings > 0.99))
    samples.clear()

    def late(seconds):
        emulator.ask("slow", seconds=seconds)
        failures = hand.failures
        eventually(lambda: hand.failures >= failures + 6, what="answers missed")
        emulator.ask("slow")
        eventually(lambda: hand.status().level is Level.OK, what="hand back")
        count = len(samples)
        eventually(lambda: len(samples) > count + 3, what="samples")

    for seconds in (0.05, 0.07, 0.11):
        late(seconds)
    hand.stop()
    assert all(np.all(s.openings > 0.99) and not s.force.any() for s in samples)
    assert all(np.allclose(s.temperature, 32) and np.allclose(s.current, 0.05) for s in samples)


def test_unplug_and_replug_and_no_old_command_is_repeated(hand, emulator):
    hand.command(np.full(6, 0.7))
    eventually(lambda: np.allclose(hand.newest().openings, 0.7, atol=0.002), 5.0)
    emulator.ask("unplug")
    eventually(lambda: not hand.connected, what="loss noticed")
    assert hand.status().level is Level.ERROR
    time.sleep(0.3)
    writes = emulator.ask("state")["writes"]
    emulator.ask("plug")
    eventually(lambda: hand.status().level is Level.OK, what="hand back")
    assert emulator.ask("state")["writes"] == writes
    hand.command(np.full(6, 0.3))
    eventually(lambda: np.allclose(hand.newest().openings, 0.3, atol=0.002), 5.0)


def test_after_a_power_cut_the_hand_does_not_snap_to_the_old_command(hand, emulator):
    """The arbiter holds meanwhile and goes on saying its last command."""

    def commanded(opening):
        return lambda: hand.command(np.full(6, opening)) and False

    def keep(opening, seconds):
        wait_until(commanded(opening), seconds)

    keep(0.2, 0.1)
    eventually(lambda: np.allclose(hand.newest().openings, 0.2, atol=0.002), 5.0)
    emulator.ask("unplug")
    eventually(lambda: not hand.connected, what="loss noticed")
    emulator.ask("power_cut", angles=[900] * 6)
    began = time.monotonic_ns()
    emulator.ask("plug")
    told = "came back elsewhere than commanded (little by 0.70): holds until the command changes"
    eventually(lambda: commanded(0.2)() or hand.status().message == told, what="told")
    assert hand.status().level is Level.WARN
    keep(0.2, 0.5)
    assert np.allclose(hand.newest().openings, 0.9, atol=0.002)
    assert all(max(e["values"]) == -1 for e in emulator.events("angles", began))
    eventually(
        lambda: commanded(0.3)() or np.allclose(hand.newest().openings, 0.3, atol=0.002), 20.0
    )
    sent = [e for e in emulator.events("angles", began) if max(e["values"]) >= 0]
    assert sent[0]["values"][0] > 850
    slowest = (sent[-1]["time_ns"] - sent[0]["time_ns"]) * 1e-9
    assert slowest > 0.55 / inspire_return.SPEED, "from 0.9 to 0.3"
    assert hand.status().level is Level.OK
    keep(0.8, 0.1)
    assert emulator.events("angles")[-1]["values"] == [800] * 6, "at once again"


@pytest.mark.parametrize("transport", ["eb90"], indirect=True)
def test_stall_and_heat_name_the_finger(hand, emulator):
    emulator.ask("stall", finger=3)
    eventually(lambda: hand.status().level is Level.ERROR)
    assert "index: stall" in hand.status().message
    hand.clear_errors()
    eventually(lambda: hand.status().level is Level.OK)
    emulator.ask("heat", finger=0, degrees=64)
    eventually(lambda: hand.status().level is Level.WARN)
    assert "little: 64 C" in hand.status().message
    emulator.ask("heat", finger=0, degrees=75)
    eventually(lambda: "little: over-temperature" in hand.status().message)
    hand.clear_errors()
    time.sleep(0.4)
    assert hand.status().level is Level.ERROR  # heat cannot be cleared
    emulator.ask("heat", finger=0, degrees=32)
    eventually(lambda: hand.status().level is Level.OK)


def test_an_object_stops_the_fingers_at_the_set_force(emulator):
    hand = make(emulator, "modbus_tcp", force=400)
    hand.start()
    eventually(lambda: hand.newest() is not None)
    hand.command(np.ones(6))
    eventually(lambda: np.allclose(hand.newest().openings, 1.0, atol=0.002), 5.0)
    emulator.ask("hold_object", angles=[500] * 6)
    hand.command(np.zeros(6))
    eventually(lambda: np.all(hand.newest().status == 3), 5.0)
    assert np.allclose(hand.newest().force, 400 * 0.00981, rtol=0.1)
    assert np.all(hand.newest().openings > 0.4)
    hand.stop()


def test_reported_order_and_calibration_turn_channels_into_fingers(emulator):
    hand = make(
        emulator,
        "modbus_tcp",
        order=HAND_JOINTS[::-1],
        raw_closed=(100, 0, 0, 0, 0, 0),
        raw_open=(900, 1000, 1000, 1000, 1000, 1000),
    )
    hand.start()
    eventually(lambda: hand.newest() is not None)
    hand.command([0.5, 1.0, 1.0, 1.0, 1.0, 0.25])
    eventually(
        lambda: emulator.events("angles")[-1]["values"] == [250, 1000, 1000, 1000, 1000, 500]
    )
    eventually(lambda: np.allclose(hand.newest().openings, [0.5, 1, 1, 1, 1, 0.25], atol=0.005))
    assert np.allclose(
        hand.raw_angles_of(hand.newest()), [500, 1000, 1000, 1000, 1000, 250], atol=3
    )
    hand.stop()


def test_wrong_id_is_silence_and_says_so(emulator):
    hand = make(emulator, "eb90", hand_id=7, timeout=0.03)
    hand.start()
    eventually(lambda: "no valid answer from id 7" in hand.status().message)
    hand.stop()


def test_twenty_reconnects_without_leak(emulator, transport):
    hand = make(emulator, transport)
    hand.start()
    eventually(lambda: hand.newest() is not None)

    def once():
        emulator.ask("unplug")
        eventually(lambda: not hand.connected, 60.0)
        emulator.ask("plug")
        count = hand.samples.count
        assert hand.wait(count, 60.0) is not None

    repeat_without_leak(once)
    assert hand.losses >= 21
    hand.stop()


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="order"):
        InspireConfig(order=("little",) * 6)
    with pytest.raises(ValueError, match="index: raw_open 10"):
        InspireConfig(raw_open=(1000, 1000, 1000, 10, 1000, 1000))
    with pytest.raises(ValueError, match="hand_id"):
        InspireConfig(hand_id=0)
    with pytest.raises(ValueError, match="shape"):
        InspireHand(InspireConfig()).command([0.5])


def test_frames_are_those_of_the_manual():
    read = eb90.Frame(1, eb90.READ, reg.ANGLE_ACT.address, bytes([12]))
    assert eb90.build(eb90.REQUEST, read).hex(" ") == "eb 90 01 04 11 0a 06 0c 32"
    assert reg.encode(reg.ANGLE_SET, [0, -1, 1000, 1, 2, 3]).hex(" ") == (
        "00 00 ff ff e8 03 01 00 02 00 03 00"
    )
    assert modbus.crc(bytes.fromhex("01 04 02 ff ff")) == bytes.fromhex("b8 80")


def test_registers_refuse_what_does_not_belong():
    with pytest.raises(reg.RegisterError, match=r"ANGLE_SET\[2\] = 1001"):
        reg.encode(reg.ANGLE_SET, [0, 0, 1001, 0, 0, 0])
    with pytest.raises(reg.RegisterError, match="cannot be written"):
        reg.encode(reg.ANGLE_ACT, [0] * 6)
    with pytest.raises(reg.RegisterError, match="11 bytes"):
        reg.decode(reg.ANGLE_ACT, bytes(11))
    with pytest.raises(reg.RegisterError, match="impossible"):
        reg.decode(reg.ANGLE_ACT, b"\xff\x7f" * 6)
    swapped = reg.decode(reg.TEMP, bytes([1, 2, 3, 4, 5, 6]), high_byte_first=True)
    assert swapped.tolist() == [2, 1, 4, 3, 6, 5]
    assert reg.error_names(0b10010) == ["over-temperature", "communication fault"]
    spans = sorted((r.address, r.address + r.size) for r in reg.REGISTERS)
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))


def test_fuzzed_streams_never_break_the_parsers():
    rng = np.random.default_rng(3)
    good = eb90.build(eb90.REPLY, eb90.Frame(1, eb90.READ, 1546, bytes(12)))
    parser, rtu, found = eb90.Parser(eb90.REPLY), modbus.RtuParser(), 0
    for _ in range(12_000):
        data = bytearray(good)
        for _ in range(rng.integers(0, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        data = data[: rng.integers(len(data) + 1)] if rng.random() < 0.3 else data
        found += len(parser.feed(bytes(data)))
        rtu.feed(bytes(data))
        assert len(parser._buffer) < 600
        assert len(rtu._buffer) < 600
        modbus.answer(bytes(data), lambda a, n: bytes(n), lambda a, d: True)
        for register in (reg.ANGLE_ACT, reg.ERROR):
            try:
                reg.decode(register, bytes(data[: register.size]))
            except reg.RegisterError:
                pass
    assert 1000 < found < 12_000
    assert parser.broken > 0
    parser.feed(bytes(300))
    assert parser.feed(good)[-1].data == bytes(12)  # it finds its way back
