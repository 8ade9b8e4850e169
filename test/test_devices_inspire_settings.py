"""What is asked of a hand beside its openings: errors, speed, force, and the order of its bytes."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from emulated import eventually
from test_devices_inspire import emulator, hand, make, peer

from dexpie_ros.control.guard import CLEAR_ERRORS
from dexpie_ros.devices import inspire_hand
from dexpie_ros.devices import inspire_registers as reg
from dexpie_ros.devices.device import DeviceError, Level
from dexpie_ros.devices.inspire_hand import InspireConfig, InspireHand
from dexpie_ros.devices.inspire_return import Return
from dexpie_ros.devices.inspire_transport import NoAnswer, line_timeout, prefer_latency

__all__ = ["emulator", "hand", "peer"]  # fixtures


@pytest.fixture
def transport():
    return "modbus_tcp"


def test_requests_belong_to_the_connection_they_were_made_on(hand, emulator):
    emulator.ask("unplug")
    eventually(lambda: not hand.connected, 60.0)
    began = time.monotonic_ns()
    assert not hand.clear_errors() and not hand.set_speed(100)
    emulator.ask("plug")
    eventually(lambda: hand.status().level is Level.OK, 60.0, "hand back")
    count = hand.samples.count
    assert hand.wait(count + 3, 60.0) is not None
    assert not emulator.events("clear", began), "what was refused is not done later"


class Line:
    """A transport that fails when told to, and notes what was written."""

    def __init__(self):
        self.fails, self.written, self.read_at = 0, [], []
        self.timeout = 0.02

    def open(self):
        pass

    def close(self):
        pass

    def read(self, address, size):
        self.read_at.append((address, size))
        return bytes(size)

    def write(self, address, data):
        if self.fails:
            self.fails -= 1
            raise NoAnswer("silence")
        self.written.append(address)


def test_a_request_whose_write_fails_is_written_again_unless_the_line_is_opened_anew():
    hand, line = InspireHand(InspireConfig()), Line()
    hand._transport, hand._connected = line, True
    hand._open()
    assert hand.clear_errors() and hand.set_force(300)
    line.written.clear()
    line.fails = 1
    hand._cycle()
    assert hand.failures == 1 and line.written == []
    hand._cycle()
    assert line.written == [reg.CLEAR_ERROR.address, reg.FORCE_SET.address]
    hand._cycle()
    assert len(line.written) == 2, "once only"
    assert all(hand.clear_errors() for _ in range(inspire_hand.MAX_REQUESTS))
    assert not hand.clear_errors()
    line.written.clear()
    hand._open()
    hand._cycle()
    assert reg.CLEAR_ERROR.address not in line.written


def opened(kind):
    """A hand whose line does what the test says, and its line."""
    hand, line = InspireHand(InspireConfig(transport=kind, rate_hz=500.0)), Line()
    hand._transport, hand._connected = line, True
    hand._open()
    hand._cycle()
    return hand, line


@pytest.mark.parametrize(("kind", "attempts"), [("modbus_tcp", 1), ("modbus_rtu", 2), ("eb90", 2)])
def test_a_silent_line_is_told_at_once_in_every_cycle(kind, attempts):
    """Whoever waits for samples is woken: the arm holds for it."""
    hand, line = opened(kind)
    for missed in range(1, inspire_hand.MAX_FAILURES):
        line.fails = attempts
        hand.command([0.1 * missed] * 6)
        woken, count = hand.samples._woken, hand.samples.count
        hand._cycle()
        assert hand.samples._woken > woken and hand.samples.count == count
        assert hand._health() == (Level.STALE, "silence")
        assert hand.failures == missed * attempts and line.fails == 0
    line.fails = attempts
    hand.command([0.9] * 6)
    with pytest.raises(DeviceError, match="5 times in a row"):
        hand._cycle()
    hand._open()
    hand.command([0.0] * 6)  # where it is: it had none of the commands
    hand._cycle()
    hand._cycle()
    assert hand._health() == (Level.OK, "ok")


@pytest.mark.parametrize("kind", ["modbus_rtu", "eb90"])
def test_one_disturbed_byte_on_a_serial_line_costs_nothing_but_a_second_question(kind):
    hand, line = opened(kind)
    for missed in range(1, 2 * inspire_hand.MAX_FAILURES):
        line.fails = 1
        hand.command([0.1 * (missed % 10)] * 6)
        woken, count = hand.samples._woken, hand.samples.count
        hand._cycle()
        assert (hand.samples._woken, hand.samples.count) == (woken, count + 1)
        assert hand._health() == (Level.OK, "ok") and hand.failures == missed
        assert line.written[-1] == reg.ANGLE_SET.address


def test_over_tcp_the_slow_registers_are_read_between_the_others():
    """So that the line is not unwatched for longer than half a cycle."""
    hand, line = opened("modbus_tcp")
    line.read_at.clear()
    hand._cycle()
    slow, size = reg.CURRENT, sum(r.size for r in inspire_hand.SLOW)
    assert line.read_at == [
        (reg.ANGLE_ACT.address, 12), (reg.FORCE_ACT.address, 14), (slow.address, size),
    ]  # fmt: skip
    hand, line = opened("eb90")
    line.read_at.clear()
    hand._cycle()
    assert line.read_at == [(reg.ANGLE_ACT.address, 12), (reg.FORCE_ACT.address, 12)]


def test_a_serial_line_is_given_the_time_that_its_bytes_take(tmp_path):
    assert line_timeout(115200) == pytest.approx(0.0146, abs=1e-4)
    assert line_timeout(19200) == pytest.approx(0.0276, abs=1e-4)
    asked = []
    port = SimpleNamespace(set_low_latency_mode=asked.append)
    device = tmp_path / "ttyUSB3"
    device.touch()
    link = tmp_path / "inspire_hand"
    link.symlink_to(device)
    assert prefer_latency(port, str(link), str(tmp_path / "tty")) == 0.0, "no FTDI adapter"
    timer = tmp_path / "tty" / "ttyUSB3" / "device"
    timer.mkdir(parents=True)
    (timer / "latency_timer").write_text("16\n")
    assert prefer_latency(port, str(link), str(tmp_path / "tty")) == 0.016
    assert asked == [True, True]

    def refuse(on):
        raise ValueError("not with this adapter")

    port.set_low_latency_mode = refuse
    assert prefer_latency(port, str(link), str(tmp_path / "tty")) == 0.016


def test_a_finger_that_stopped_says_what_the_guard_goes_by():
    hand, line = InspireHand(InspireConfig()), Line()
    line.read = lambda address, size: bytes([1] * size)
    hand._transport, hand._connected = line, True
    hand._open()
    hand._cycle()
    level, message = hand._health()
    assert level is Level.ERROR and "stall" in message and CLEAR_ERRORS in message


@pytest.mark.parametrize("transport", ["modbus_tcp", "eb90"])
def test_speed_and_force_reach_the_hand_and_outlast_the_line(emulator, transport):
    hand = make(emulator, transport, speed=900, force=400)
    hand.start()

    def has(speed, force):
        state = emulator.ask("state")
        return state["speed"] == [speed] * 6 and state["force"] == [force] * 6

    eventually(lambda: hand.newest() is not None, 60.0)
    assert has(900, 400), "from the configuration, before anything else"
    assert hand.set_speed(500) and hand.set_force(100)
    eventually(lambda: has(500, 100), 60.0)
    with pytest.raises(reg.RegisterError, match=r"SPEED_SET\[0\] = 1001"):
        hand.set_speed(1001)
    emulator.ask("unplug")
    eventually(lambda: not hand.connected, 60.0)
    emulator.ask("plug")
    count = hand.samples.count
    assert hand.wait(count, 60.0) is not None
    assert has(500, 100), "not those of the configuration"
    hand.stop()


@pytest.mark.parametrize("transport", ["modbus_tcp", "modbus_rtu", "eb90"])
def test_firmware_with_the_high_byte_first(emulator, transport):
    emulator.ask("heat", finger=0, degrees=55)
    emulator.ask("high_byte_first")
    for setting in (True, False):
        hand = make(emulator, transport, high_byte_first=setting)
        hand.start()
        eventually(lambda: hand.newest() is not None, 60.0)  # noqa: B023
        # EB90 sends bytes one by one: there the setting must change nothing
        warm = 0 if setting or transport == "eb90" else 1
        eventually(lambda: hand.newest().temperature[warm] == 55, 60.0)  # noqa: B023
        assert np.count_nonzero(hand.newest().temperature == 55) == 1
        hand.stop()


def test_what_a_hand_that_came_back_is_sent():
    """Nothing while the command is the old one, then from where it is, slowly; NaN stays NaN."""
    kept, there = np.array([0.2] * 5 + [np.nan]), np.full(6, 0.9)
    near = Return(kept)
    assert np.array_equal(near.next(kept, kept + 0.05, 1.0), kept, equal_nan=True) and near.done
    back = Return(kept)
    assert np.isnan(back.next(kept, there, 1.0)).all()
    assert back.said.startswith("came back elsewhere") and not back.done
    new = np.array([0.3] * 4 + [0.9, np.nan])
    sent = [back.next(new, there, 1.0 + 0.1 * n) for n in range(1, 20)]
    assert np.allclose(sent[0][:5], 0.9) and np.allclose(sent[1][:4], 0.85)
    assert all(np.isnan(values[5]) and values[4] == 0.9 for values in sent)
    assert back.done and np.array_equal(sent[-1], new, equal_nan=True) and back.said == ""


def test_a_line_that_is_lost_again_while_the_hand_holds_changes_nothing():
    hand, line = opened("modbus_tcp")
    hand.command([0.9] * 6)
    hand._cycle()
    line.written.clear()
    for _ in range(3):  # it reads zeros, its set-point among them
        hand._open()
        for _ in range(3):
            hand.command([0.9] * 6)
            hand._cycle()
        assert "came back elsewhere" in hand._health()[1]
    hand.command([0.8] * 6)
    hand._cycle()
    hand._open()
    for _ in range(3):
        hand._cycle()
    assert "came back elsewhere" in hand._health()[1], "on its way"


def test_a_firmware_that_keeps_nonsense_as_its_set_point_is_not_lost():
    hand, line = opened("modbus_rtu")
    hand.command([0.0] * 6)
    hand._cycle()
    nonsense = b"\xff\x7f" * 8
    line.read = lambda address, size: bytes(size) if address != reg.ANGLE_SET.address else nonsense
    hand._open()
    for _ in range(3):
        hand._cycle()
    assert hand._health() == (Level.OK, "ok") and not hand._in_a_row
