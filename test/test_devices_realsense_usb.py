"""A camera on USB that is busy, vanishes or sends nothing; librealsense's part is played here."""

import time
from types import SimpleNamespace

import pytest
from emulated import eventually, needs_realsense
from test_devices_realsense import SERIAL

from dexpie_ros.devices import realsense, realsense_library
from dexpie_ros.devices.device import Backoff, DeviceError, Level
from dexpie_ros.devices.realsense import RealSense, RealSenseConfig
from dexpie_ros.devices.realsense_discovery import UsbDiscovery


@pytest.fixture(scope="module", autouse=True)
def _library():
    needs_realsense()


class Usb:
    """A camera on USB of which one thing fails; everything that librealsense is asked for here."""

    def __init__(self, fails=""):
        self.fails, self.resets = fails, 0
        self.stopped = False

    def find(self, serial):
        self._maybe("find")
        return self

    def present(self, serial):
        return True

    def close(self):
        pass

    def query_sensors(self):
        return [self]

    def get_stream_profiles(self):
        return [self]

    def stream_type(self):
        return realsense_library.load().stream.color

    def format(self):
        return realsense_library.load().format.rgb8

    def as_video_stream_profile(self):
        return self

    width, height, fps = (lambda self: 320), (lambda self: 240), (lambda self: 30)

    def get_intrinsics(self):
        self._maybe("intrinsics")
        return realsense_library.load().intrinsics()

    def supports(self, option):
        return False

    def open(self, profile):
        self._maybe("open")

    def start(self, queue):
        self._maybe("start")

    def stop(self):
        self.stopped = True

    def hardware_reset(self):
        self.resets += 1

    def _maybe(self, what):
        if self.fails == what:
            raise RuntimeError(f"{what}: Device or resource busy")


def on_usb(usb, **options):
    settings = RealSenseConfig(serial=SERIAL, width=320, height=240, fps=30)
    return RealSense(settings, discovery=usb, backoff=Backoff(0.001, 0.001), **options)


def open_often(camera, times=10):
    """Opens and closes without any frame between; the messages of failed openings."""
    messages = []
    for _ in range(times):
        try:
            camera._open()
        except DeviceError as error:
            messages.append(str(error))
        camera._close()
    return messages


@pytest.mark.parametrize("fails", ["find", "open", "start", "intrinsics"])
def test_a_camera_that_cannot_be_opened_is_an_error_and_tried_again(fails):
    usb = Usb(fails)
    camera = on_usb(usb)
    camera.start()
    eventually(lambda: "busy" in camera.status().message, 60.0)
    usb.fails = ""
    eventually(lambda: camera.connected, 60.0, "opened in the end")
    camera.stop()


def test_an_empty_frame_is_a_loss_and_no_crash():
    rs = realsense_library.load()
    camera = on_usb(Usb())
    camera._open()
    camera._queue = SimpleNamespace(wait_for_frame=lambda milliseconds: rs.frame())
    with pytest.raises(DeviceError, match="unreadable frame"):
        camera._cycle()
    camera._close()


def test_only_a_camera_that_was_opened_and_sends_nothing_is_reset():
    """One that is busy belongs to somebody else, for instance the stack beside `doctor`."""
    usb = Usb("open")
    messages = open_often(on_usb(usb))
    assert len(messages) == 10 and usb.resets == 0
    assert "cannot be started: open: Device or resource busy" in messages[-1]
    usb = Usb()
    messages = open_often(on_usb(usb), 4)
    assert usb.resets == 1 and messages == [f"camera {SERIAL} sent nothing and has been reset"]
    usb = Usb()
    assert open_often(on_usb(usb, resets=False)) == [] and usb.resets == 0


def test_usb_discovery_notices_that_its_camera_was_removed():
    class Change:
        def __init__(self, removed):
            self.removed = removed

        def was_removed(self, device):
            return device is self.removed

    class Device:
        def __init__(self, serial):
            self.serial = serial

        def get_info(self, what):
            return self.serial

    discovery, mine, other = UsbDiscovery(), Device(SERIAL), Device("other")
    rs = discovery._rs = realsense_library.load()
    discovery._context = SimpleNamespace(query_devices=lambda: [other, mine])
    assert rs.camera_info.serial_number is not None
    discovery._on_change(Change(mine))
    assert discovery.find(SERIAL) is mine
    assert discovery.present(SERIAL)
    discovery._on_change(Change(other))
    assert discovery.present(SERIAL), "another camera's cable"
    discovery._on_change(Change(mine))
    assert not discovery.present(SERIAL)
    assert discovery.find(SERIAL) is mine and discovery.present(SERIAL), "plugged in again"
    with pytest.raises(DeviceError, match=f"found: {SERIAL}, other"):
        discovery.find("absent")
    discovery.close()
    discovery._on_change(Change(mine))
    assert discovery.present(SERIAL), "of no concern once it is closed"


def test_no_camera_on_usb_is_said_at_once():
    discovery = UsbDiscovery()
    began = time.monotonic()
    with pytest.raises(DeviceError, match="no RealSense with serial 'absent'"):
        discovery.find("absent")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("settings", "limit"), [({}, 3.5 / 60), ({"silent_after": 0.2}, 0.2)])
def test_two_lost_frames_are_ordinary_and_a_longer_silence_is_told_at_once(
    monkeypatch, settings, limit
):
    clock = SimpleNamespace(now=10.0)
    monkeypatch.setattr(realsense, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def none_came(wait_ms):
        raise RuntimeError("Frame didn't arrive")

    camera = RealSense(RealSenseConfig(serial=SERIAL, fps=60, **settings), discovery=Usb())
    camera._queue, camera._frame_at = SimpleNamespace(wait_for_frame=none_came), clock.now
    camera._misses, woken = 0, camera.samples._woken
    clock.now += limit - 0.001
    camera._cycle()
    assert camera._health() == (Level.OK, "ok") and camera.samples._woken == woken
    clock.now += 0.002
    camera._cycle()
    assert camera.samples._woken == woken + 1
    assert camera._health() == (Level.STALE, f"no frame for {limit + 0.001:.2f} s")
