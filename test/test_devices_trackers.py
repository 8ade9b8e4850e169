"""The Vive client over the real openvr package against a compiled runtime; the ArUco cube."""

import ctypes
import time

import numpy as np
import pytest
from emulated import eventually, needs, needs_compiler, repeat_without_leak

from dexpie_ros import geometry
from dexpie_ros.devices.aruco_cube import (
    ArucoSource,
    CubeConfig,
    CubeDetector,
    aruco_tracker,
    face_corners,
)
from dexpie_ros.devices.device import Backoff, Level
from dexpie_ros.devices.pose_source import PoseTracker, Reading, rigid
from dexpie_ros.devices.vive_tracker import ViveConfig, judge, vive_tracker
from dexpie_ros.emulators.cube_view import render_cube
from dexpie_ros.emulators.peer import Emulator

SERIAL = "LHR-0A1B2C3D"
K = np.array([[615.0, 0, 320], [0, 615.0, 240], [0, 0, 1]])


@pytest.fixture(scope="module")
def peer():
    needs("openvr")
    needs_compiler()
    with Emulator("vive", "--serial", SERIAL, "LHR-OTHER") as emulator:
        yield emulator


@pytest.fixture
def emulator(peer):
    yield peer
    peer.ask("run", on=True)
    peer.ask("tracking")
    peer.ask("jump", x=0, y=0, z=0)
    peer.ask("garbage", on=False)
    peer.ask("freeze", on=False)
    peer.ask("place")


def make(emulator, **changes):
    settings = {"serial": SERIAL, "path_registry": emulator.ready["path_registry"]}
    return vive_tracker(ViveConfig(**(settings | changes)), backoff=Backoff(0.02, 0.05))


@pytest.fixture
def tracker(emulator):
    tracker = make(emulator)
    tracker.start()
    eventually(lambda: tracker.newest() is not None, what="first pose")
    yield tracker
    tracker.stop()


def test_poses_by_serial(tracker, emulator):
    pose = geometry.make_pose(geometry.rotation_exp([0.3, -0.2, 0.9]), [0.4, 1.1, -0.6])
    emulator.ask("place", matrix=pose.tolist())
    eventually(lambda: np.allclose(tracker.newest().pose.matrix(), pose, atol=1e-6))
    assert abs(time.time_ns() - tracker.newest().time_ns) < 1e9
    assert np.linalg.norm(tracker.newest().pose.quaternion) == pytest.approx(1.0, abs=1e-12)
    assert tracker.status().level is Level.OK
    count = tracker.samples.count
    time.sleep(0.5)
    assert tracker.samples.count - count > 20  # nominal 60


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"result": 201, "valid": False}, "out of range of the lighthouses"),
        ({"result": 201, "valid": True}, "out of range"),  # extrapolated, hence not to be trusted
        ({"result": 300}, "rotation only"),
        ({"connected": False}, "check its battery"),
    ],
)
def test_tracking_loss_makes_it_stale_and_says_why(tracker, emulator, fault, words):
    emulator.ask("tracking", **fault)
    eventually(lambda: tracker.status().level is Level.STALE, 5.0)
    assert words in tracker.status().message
    count = tracker.samples.count
    time.sleep(0.05)
    assert tracker.samples.count == count
    emulator.ask("tracking")
    eventually(lambda: tracker.status().level is Level.OK)


@pytest.mark.parametrize("how", ["pair_again", "swap_silently"])
def test_a_new_index_is_found_by_serial(tracker, emulator, how):
    emulator.ask(how)
    count = tracker.samples.count
    eventually(lambda: tracker.samples.count > count + 10)
    eventually(lambda: tracker.status().level is Level.OK)
    assert tracker.losses == 0


def test_steamvr_quits_and_returns_twenty_times(tracker, emulator):
    def once():
        losses = tracker.losses
        emulator.ask("run", on=False)
        eventually(lambda: tracker.losses > losses, 60.0, "loss noticed")
        eventually(lambda: "SteamVR" in tracker.status().message, 60.0)
        emulator.ask("run", on=True)
        count = tracker.samples.count
        assert tracker.wait(count, 60.0) is not None

    repeat_without_leak(once)
    assert tracker.losses >= 21


def test_a_hung_steamvr_gives_no_poses(tracker, emulator):
    """Its last pose stays readable and valid for ever; a tracker at rest is another thing."""
    emulator.ask("place", matrix=np.eye(4).tolist())
    count = tracker.samples.count
    eventually(lambda: tracker.samples.count > count + 100, 60.0, "poses of a tracker at rest")
    assert tracker.status().level is Level.OK
    emulator.ask("freeze")
    eventually(lambda: tracker.status().level is Level.STALE, 60.0)
    assert "the pose is frozen; SteamVR hangs" in tracker.status().message
    count = tracker.samples.count
    time.sleep(0.1)
    assert tracker.samples.count == count
    emulator.ask("freeze", on=False)
    eventually(lambda: tracker.status().level is Level.OK, 60.0)


def test_poses_that_are_none_are_left_out(tracker, emulator):
    emulator.ask("garbage")
    eventually(lambda: "no pose" in tracker.status().message, 5.0)
    emulator.ask("garbage", on=False)
    eventually(lambda: tracker.status().level is Level.OK)


def test_unknown_serial_names_those_that_are_there(emulator):
    tracker = make(emulator, serial="LHR-MISSING")
    tracker.start()
    eventually(lambda: "LHR-OTHER" in tracker.status().message)
    assert tracker.status().level is Level.STALE
    tracker.stop()


def test_without_steamvr_it_says_what_to_do(tmp_path):
    needs("openvr")
    settings = ViveConfig(serial=SERIAL, path_registry=str(tmp_path / "none.vrpath"))
    tracker = vive_tracker(settings, backoff=Backoff(0.02, 0.05))
    tracker.start()
    eventually(lambda: "SteamVR does not answer" in tracker.status().message)
    tracker.stop()


class Scripted:
    """A pose source that returns what a test wants."""

    where = "script"

    def __init__(self):
        self.position = [0.0, 0.0, 0.0]

    def open(self):
        pass

    def close(self):
        pass

    def read(self):
        return Reading(time.time_ns(), geometry.make_pose(np.eye(3), self.position))


def test_a_jump_is_left_out_until_everybody_has_noticed():
    """Silence long enough for the arbiter to count the operator as lost and to anchor him anew."""
    source = Scripted()
    tracker = PoseTracker(source, rate_hz=500.0, max_speed=2.0)
    tracker.start()
    eventually(lambda: tracker.samples.count > 3)
    source.position = [1.0, 0.0, 0.0]
    eventually(lambda: tracker.rejected > 0)
    last = tracker.newest()
    assert "jumps" in tracker.status().message
    eventually(lambda: tracker.newest().pose.position[0] == 1.0)
    silent = (tracker.samples.get().time_ns - last.time_ns) * 1e-9
    assert silent > 0.4, "more than operator_s + reanchor_seconds"
    assert tracker.rejected >= 10
    tracker.stop()


def test_fuzzed_poses_are_judged_and_never_raise():
    openvr = needs("openvr")
    rng = np.random.default_rng(5)
    size = ctypes.sizeof(openvr.TrackedDevicePose_t)
    good = openvr.TrackedDevicePose_t()
    good.bPoseIsValid = good.bDeviceIsConnected = 1
    good.eTrackingResult = 200
    for i in range(3):
        good.mDeviceToAbsoluteTracking.m[i][i] = 1.0
    assert np.allclose(judge(good)[0], np.eye(4))
    accepted = 0
    for _ in range(10_000):
        data = bytearray(bytes(good))
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(size)] = rng.integers(256)
        pose, reason = judge(openvr.TrackedDevicePose_t.from_buffer_copy(bytes(data)))
        assert (pose is None) == bool(reason)
        if pose is not None:
            accepted += 1
            assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    assert 0 < accepted < 10_000
    mirrored = np.eye(3, 4)
    mirrored[0, 0] = -1
    assert rigid(mirrored) is None


def render(pose, settings):
    return render_cube(pose, settings, K)


def test_cube_pose_from_rendered_views():
    needs("cv2")
    settings = CubeConfig()
    detector = CubeDetector(settings, K)
    rng = np.random.default_rng(6)
    distances, angles, seen = [], [], 0
    for _ in range(40):
        pose = geometry.make_pose(
            geometry.rotation_exp(rng.normal(size=3)),
            [*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.3, 0.5)],
        )
        found, reason = detector.detect(render(pose, settings))
        if found is None:
            assert "faces" in reason or "reprojection" in reason
            continue
        seen += 1
        distances.append(np.linalg.norm(found[:3, 3] - pose[:3, 3]))
        angles.append(geometry.rotation_angle(found[:3, :3], pose[:3, :3]))
    assert seen > 15
    assert np.median(distances) < 0.005
    assert np.median(angles) < np.radians(1.5)
    assert np.max(angles) < np.radians(8)  # never the flip of a single marker


def test_one_face_is_not_enough():
    needs("cv2")
    settings = CubeConfig()
    facing = geometry.make_pose(np.diag([1.0, -1, -1]), [0, 0, 0.35])
    found, reason = CubeDetector(settings, K).detect(render(facing, settings))
    assert found is None
    assert reason == "1 faces of the cube in view, 2 needed"


def test_cube_of_another_size_is_noticed_only_by_scale_so_the_config_must_be_right():
    with pytest.raises(ValueError, match="must fit"):
        CubeConfig(side=0.04, marker=0.05)
    with pytest.raises(ValueError, match="a single face flips"):
        CubeConfig(min_faces=1)
    with pytest.raises(ValueError, match="each marker once"):
        CubeConfig(ids=(0, 0, 1, 2, 3, 4))


def test_a_cube_config_names_a_dictionary_and_its_markers():
    cv2 = needs("cv2")
    with pytest.raises(ValueError, match="one of DICT_4X4_50"):
        CubeConfig(dictionary="DICT_4x4_50")
    with pytest.raises(ValueError, match=r"has the markers 0\.\.49"):
        CubeConfig(ids=(0, 1, 2, 3, 4, 50))
    every = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
    assert len(every) >= 20
    for name in every:
        CubeDetector(CubeConfig(dictionary=name), K)
        size = len(cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name)).bytesList)
        CubeConfig(dictionary=name, ids=(0, 1, 2, 3, 4, size - 1))
        with pytest.raises(ValueError, match="has the markers"):
            CubeConfig(dictionary=name, ids=(0, 1, 2, 3, 4, size))


def test_a_later_camera_info_is_taken_up():
    """The camera came back with another resolution: the old one's matrix would misplace the cube."""
    needs("cv2")
    settings = CubeConfig()
    source = ArucoSource(settings, K / [[2], [2], [1]])
    source.open()
    pose = geometry.make_pose(geometry.rotation_exp([2.4, 0.5, 0.6]), [0.02, -0.03, 0.35])
    image = render(pose, settings)
    source.offer(1, image)
    wrong = source.read().pose
    assert wrong is None or np.linalg.norm(wrong[:3, 3] - pose[:3, 3]) > 0.05
    source.calibrate(K)
    source.offer(2, image)
    assert np.allclose(source.read().pose[:3, 3], pose[:3, 3], atol=0.01)
    source.close()
    assert source.read() is None


def test_cube_tracker_takes_offered_images():
    needs("cv2")
    settings = CubeConfig()
    source = ArucoSource(settings, K)
    tracker = aruco_tracker(source, settings)
    tracker.start()
    pose = geometry.make_pose(geometry.rotation_exp([2.4, 0.5, 0.6]), [0.02, -0.03, 0.35])
    image = render(pose, settings)
    stamp = time.time_ns()
    eventually(lambda: tracker.connected)
    source.offer(stamp, np.repeat(image[..., None], 3, axis=2))
    eventually(lambda: tracker.newest() is not None)
    assert tracker.newest().time_ns == stamp
    assert np.allclose(tracker.newest().pose.position, pose[:3, 3], atol=0.01)
    source.offer(time.time_ns(), np.zeros((480, 640), np.uint8))
    eventually(lambda: "0 faces" in tracker.status().message)
    tracker.stop()


def test_images_with_noise_and_impossible_corners_never_raise():
    """Ten thousand images are in test_devices_fuzz."""
    needs("cv2")
    rng = np.random.default_rng(7)
    detector = CubeDetector(CubeConfig(), K)
    pose = geometry.make_pose(geometry.rotation_exp([2.4, 0.5, 0.6]), [0.02, -0.03, 0.35])
    view = render(pose, CubeConfig())[160:320, 240:400]
    for _ in range(100):
        image = view.copy()
        y, x = rng.integers(0, 120, 2)
        image[y : y + 40, x : x + 40] = rng.integers(0, 256, (40, 40))
        detector.detect(image)
    for _ in range(25):
        detector.detect(rng.integers(0, 256, (480, 480), np.uint8))
    points = np.concatenate(face_corners(0.06, 0.045)[:2])
    for _ in range(300):  # corners that no cube has
        count = int(rng.choice([4, 8]))
        pixels = rng.uniform(-1e3, 1e3, (count, 2)) * rng.choice([0.0, 1.0, 1e4])
        found, reason = detector._solve(points[:count], pixels)
        assert (found is None) == bool(reason)
