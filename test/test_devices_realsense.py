"""The camera client over pyrealsense2's sensors against the camera emulator."""

import struct
import time

import numpy as np
import pytest
from emulated import eventually, needs_realsense, repeat_without_leak

from dexpie_ros.devices import realsense_library
from dexpie_ros.devices.clock import ClockMap
from dexpie_ros.devices.device import Backoff, Level
from dexpie_ros.devices.realsense import (
    RealSense,
    RealSenseConfig,
    capture_time,
    encode_jpeg,
)
from dexpie_ros.devices.realsense_discovery import (
    FRAME,
    MAGIC,
    CameraDescription,
    RemoteDiscovery,
    parse_header,
)
from dexpie_ros.emulators.peer import Emulator

SERIAL = "823112061234"


@pytest.fixture(scope="module", autouse=True)
def _library():
    needs_realsense()


def start_emulator(width=320, height=240, fps=30):
    shape = ["--width", str(width), "--height", str(height), "--fps", str(fps)]
    return Emulator("realsense", "--port", "0", "--serial", SERIAL, *shape)


@pytest.fixture(scope="module")
def peer():
    with start_emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(peer):
    peer.ask("plug")
    peer.ask("stall", on=False)
    peer.ask("clock", domain="global_time")
    return peer


def make(emulator, **changes):
    settings = {"serial": SERIAL, "width": 320, "height": 240, "fps": 30}
    discovery = RemoteDiscovery(emulator.ready["host"], emulator.ready["port"])
    return RealSense(
        RealSenseConfig(**(settings | changes)), discovery=discovery, backoff=Backoff(0.02, 0.1)
    )


@pytest.fixture
def camera(emulator):
    camera = make(emulator)
    camera.start()
    eventually(lambda: camera.newest() is not None, what="first frame")
    yield camera
    camera.stop()


def number_in(image):
    return struct.unpack("<q", image.reshape(-1)[:8].tobytes())[0]


def test_frames_come_with_pixels_numbers_and_capture_stamps(camera):
    count, stamps = camera.samples.count, []
    for _ in range(10):
        sample = camera.wait(count, 2.0)
        count = camera.samples.count
        stamps.append(sample.time_ns)
        assert sample.image.shape == (240, 320, 3)
        assert sample.image.dtype == np.uint8
        assert number_in(sample.image) == sample.number
        assert sample.image.flags.owndata
        assert 0 <= sample.arrival_ns - sample.time_ns < 1e9
    assert np.all(np.diff(stamps) > 0)
    eventually(lambda: camera.status().level is Level.OK)
    assert camera.intrinsics.fx == pytest.approx(307.5)
    assert camera.intrinsics.matrix()[0, 2] == 160


def test_full_size_stream_arrives_nearly_whole():
    with start_emulator(640, 480, 60) as emulator:
        camera = make(emulator, width=640, height=480, fps=60)
        camera.start()
        eventually(lambda: camera.samples.count > 5)
        first, count = camera.newest(), camera.samples.count
        time.sleep(1.0)
        last = camera.newest()
        seconds = (last.time_ns - first.time_ns) * 1e-9
        assert (camera.samples.count - count) / seconds > 20  # nominal 60; a busy machine drops
        assert last.image.shape == (480, 640, 3)
        camera.stop()


def test_stall_is_reported_and_ends(camera, emulator):
    emulator.ask("stall")
    eventually(lambda: camera.status().level in (Level.STALE, Level.ERROR), 5.0)
    eventually(lambda: "sent no frame" in camera.status().message, 5.0)
    emulator.ask("stall", on=False)
    eventually(lambda: camera.status().level is Level.OK)


def test_twenty_unplugs_and_replugs_without_leak(camera, emulator):
    def once():
        emulator.ask("unplug")
        eventually(lambda: not camera.connected, 60.0, "loss noticed")
        emulator.ask("plug")
        count = camera.samples.count
        assert camera.wait(count, 60.0) is not None

    repeat_without_leak(once)
    assert camera.losses >= 21
    assert "unplugged" in camera._problem


def test_lost_frames_are_counted(camera, emulator):
    emulator.ask("skip", frames=7)
    eventually(lambda: camera.dropped >= 7)


def test_garbage_on_the_line_is_a_loss_and_no_crash(camera, emulator):
    emulator.ask("garbage")
    eventually(lambda: camera.losses == 1)
    eventually(lambda: camera.status().level is Level.OK)
    assert number_in(camera.newest().image) == camera.newest().number


def test_stamps_of_the_hardware_clock_are_mapped_to_ros_time(emulator):
    emulator.ask("clock", domain="hardware_clock", offset_ms=-1_000_000.0)
    camera = make(emulator)
    camera.start()
    eventually(lambda: camera.samples.count > 3)
    sample = camera.newest()
    assert 0 <= sample.arrival_ns - sample.time_ns < 1e9
    camera.stop()


def test_a_stamp_that_cannot_be_is_replaced():
    clock = ClockMap()
    assert capture_time(100.0, 100.01, clock, False) == 100.0
    assert capture_time(90.0, 100.02, clock, False) > 100.0  # ten seconds old
    assert capture_time(101.0, 100.03, ClockMap(), False) == pytest.approx(100.03)  # future


def test_stamps_of_a_time_before_the_host_clock_was_set_are_replaced():
    """The camera's mapping to the host's clock takes long to follow; frames that are late do not count."""
    clock = ClockMap()
    assert capture_time(100.0, 100.01, clock, False, 7.01) == 100.0
    assert capture_time(100.1, 100.41, clock, False, 7.41) == 100.1  # the host was busy
    for n in range(2, 100):
        stamp, steady = 100.0 + 0.1 * n, 7.01 + 0.1 * n
        captured = capture_time(stamp, stamp + 0.31, clock, False, steady)
        assert captured == pytest.approx(stamp + 0.31, abs=0.005)


def test_wrong_serial_and_missing_stream_are_named(emulator):
    camera = make(emulator, serial="000000000000")
    camera.start()
    eventually(lambda: f"has '{SERIAL}'" in camera.status().message)
    camera.stop()
    camera = make(emulator, width=1280, height=720)
    camera.start()
    eventually(lambda: "it offers 320x240@30" in camera.status().message)
    camera.stop()


def test_exposure_settings_reach_the_sensor(emulator):
    camera = make(
        emulator, auto_exposure=False, exposure=200.0, gain=32.0, auto_white_balance=False,
        white_balance=4000.0,
    )  # fmt: skip
    camera.start()
    eventually(lambda: camera.newest() is not None)
    rs, sensor = realsense_library.load(), camera._sensor
    assert sensor.get_option(rs.option.exposure) == 200
    assert sensor.get_option(rs.option.white_balance) == 4000
    assert sensor.get_option(rs.option.auto_exposure_priority) == 0
    camera.stop()


def test_settings_that_contradict_are_named():
    with pytest.raises(ValueError, match="auto_exposure"):
        RealSenseConfig(serial="1", exposure=100.0)
    with pytest.raises(ValueError, match="serial is empty"):
        RealSense(RealSenseConfig())


def test_jpeg_keeps_red_red():
    import cv2

    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = 255
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(image), np.uint8), cv2.IMREAD_COLOR)
    assert decoded[20, 20, 2] > 240
    assert decoded[20, 20, 0] < 15


def test_fuzzed_headers_and_descriptions_only_raise_value_error():
    rng = np.random.default_rng(4)
    header = FRAME.pack(MAGIC, 5, 1.7e12, 2)
    line = (
        b'{"serial": "1", "name": "x", "width": 640, "height": 480, "fps": 60, "fx": 1.0, '
        b'"fy": 1.0, "ppx": 1.0, "ppy": 1.0}'
    )
    assert parse_header(header) == (5, 1.7e12, 2)
    assert CameraDescription.parse(line).width == 640
    accepted = 0
    for trial in range(12_000):
        data = bytearray(header if trial % 2 else line)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        parse = parse_header if trial % 2 else CameraDescription.parse
        try:
            parse(bytes(data))
            accepted += 1
        except ValueError:
            pass
    assert 0 < accepted < 12_000
