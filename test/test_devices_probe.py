"""The short look at devices, the control channel of the emulators, and the shared worker."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from emulated import eventually, gone, loopback, needs

from dexpie_ros.devices import probe
from dexpie_ros.devices.device import Backoff, DeviceError, Level, Newest, Worker
from dexpie_ros.devices.inspire_hand import InspireConfig, InspireHand
from dexpie_ros.devices.pose_source import TrackerSample
from dexpie_ros.devices.ur5_config import Ur5Config
from dexpie_ros.emulators.channel import ControlChannel, EventLog
from dexpie_ros.emulators.peer import Emulator, EmulatorError
from dexpie_ros.geometry import Pose


def test_the_arm_is_looked_at_without_touching_it():
    host = loopback()
    assert probe.probe_arm(Ur5Config(host=host), timeout=0.2).level is Level.ERROR
    with Emulator("ur5", "--host", host) as robot:
        assert probe.probe_arm(Ur5Config(host=host)).message == "ok"
        robot.ask("power", on=False)
        assert "release the brakes" in probe.probe_arm(Ur5Config(host=host)).message
        robot.ask("power", on=True)
        robot.ask("protective_stop")
        assert "PROTECTIVE_STOP" in probe.probe_arm(Ur5Config(host=host)).message
        assert robot.ask("state")["uploads"] == 0


def test_other_devices_are_started_and_stopped():
    needs("pymodbus")
    with Emulator("inspire", "--host", "127.0.0.1", "--port", "0") as emulator:
        settings = InspireConfig(host="127.0.0.1", port=emulator.ready["port"])
        assert probe.probe(InspireHand(settings)).level is Level.OK
    status = probe.probe(InspireHand(settings), timeout=0.3)
    assert status.level is Level.ERROR


def test_an_emulator_ends_with_its_parent():
    host = loopback()
    code = (
        "from dexpie_ros.emulators.peer import Emulator\nimport os, time\n"
        f"e = Emulator('ur5', '--host', {host!r})\nprint(e.process_id, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: gone(child))


def test_an_emulator_says_what_it_can_do_and_refuses_the_rest():
    with Emulator("ur5", "--host", loopback()) as robot:
        assert "protective_stop" in robot.ask("help")
        with pytest.raises(EmulatorError, match="do=help"):
            robot.ask("explode")
        with pytest.raises(EmulatorError, match="malformed kind"):
            robot.ask("malformed", kind="odd")
        assert abs(robot.ask("time") - time.monotonic_ns()) < 5e9
    with pytest.raises(EmulatorError, match="no emulator"):
        Emulator("toaster")


def test_fuzzed_requests_are_answered():
    import asyncio

    async def ask():
        rng = np.random.default_rng(11)
        channel = ControlChannel(EventLog(), {"add": lambda a, b=1: a + b})
        assert (await channel.answer(b'{"do": "add", "a": 2}'))["result"] == 3
        good = b'{"do": "add", "a": 2, "b": 3}'
        refused = 0
        for _ in range(10_000):
            data = bytearray(good)
            data[rng.integers(len(data))] = rng.integers(256)
            answer = await channel.answer(bytes(data))
            refused += not answer["ok"]
            json.dumps(answer)
        assert 0 < refused < 10_000

    asyncio.run(ask())


class Flaky(Worker[TrackerSample]):
    """Fails to open twice, then gives three samples and is lost."""

    def __init__(self):
        super().__init__("flaky", 0.5, Backoff(0.001, 0.002))
        self.opened = self.closed = self.given = 0

    def _open(self):
        self.opened += 1
        if self.opened <= 2:
            raise DeviceError("not there")

    def _cycle(self):
        self.given += 1
        if self.given > 3:
            time.sleep(0.05)
            raise DeviceError("lost")
        pose = Pose(np.zeros(3), np.array([0, 0, 0, 1.0]))
        self.samples.put(TrackerSample(time.time_ns(), pose))

    def _close(self):
        self.closed += 1


def test_a_worker_opens_again_after_every_loss():
    device = Flaky()
    assert device.status().message == "not started"
    device.start()
    eventually(lambda: device.losses >= 2)
    device.stop()
    assert device.samples.count == 3
    assert device.opened == device.closed
    assert device.status().message == "stopped"
    assert device.status().level is Level.ERROR


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_in_a_driver_is_reported_and_not_retried():
    class Broken(Flaky):
        def _open(self):
            raise ZeroDivisionError("a bug")

    device = Broken()
    device.start()
    eventually(lambda: "ZeroDivisionError: a bug" in device.status().message)
    assert device.closed == 1
    device.stop()


def test_newest_waits_for_more():
    newest = Newest()
    assert newest.get() is None
    assert newest.age() == float("inf")
    assert newest.wait(0, 0.01) is None
    newest.put(TrackerSample(time.time_ns() - 10**9, Pose(np.zeros(3), np.zeros(4))))
    assert newest.wait(0, 0.01) is not None
    assert 0.9 < newest.age() < 30


def test_backoff_doubles_up_to_its_longest():
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(4)] == [0.5, 1.0, 2.0, 3.0]
    backoff.reset()
    assert backoff.next() == 0.5
