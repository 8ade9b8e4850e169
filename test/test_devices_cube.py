"""The ArUco cube before an emulated camera: `dexpie calibrate tracker`, `dexpie doctor --hardware`."""

import numpy as np
import pytest
import yaml
from emulated import eventually, needs

from dexpie_ros import geometry
from dexpie_ros.config import ConfigError
from dexpie_ros.devices import aruco_camera, calibration, commands, probe
from dexpie_ros.devices.calibration import TrackerMounting
from dexpie_ros.devices.device import DeviceError, Level
from dexpie_ros.devices.driver_parameters import (
    CameraDriverParameters,
    TrackerDriverParameters,
    read,
)
from dexpie_ros.emulators.peer import Emulator

SERIAL = "823112061234"
PLACE = [0.01, -0.02, 0.35]
START = geometry.rotation_exp([2.4, 0.5, 0.6])


def turned(*about):
    """The cube turned from the start about axes of its own (rad)."""
    return geometry.make_pose(START @ geometry.rotation_exp(about), PLACE).tolist()


ONE_FACE = geometry.make_pose(np.diag([1.0, -1, -1]), [0, 0, 0.35]).tolist()


@pytest.fixture(scope="module")
def camera():
    needs("cv2")
    needs("pyrealsense2")
    words = ("--port", "0", "--serial", SERIAL, "--fps", "30")
    with Emulator("realsense", *words) as emulator:
        yield emulator


@pytest.fixture
def cell(camera, tmp_path):
    """A parameter file whose tracker is the cube."""
    camera.ask("cube", matrix=turned(0, 0, 0))
    sections = {
        "camera_front": {
            "hardware": "emulated", "emulator": f"{camera.ready['host']}:{camera.ready['port']}",
            "realsense.serial": SERIAL, "realsense.fps": 30,
        },
        "tracker_driver": {"tracker": "aruco", "camera": "front"},
    }  # fmt: skip
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump({n: {"ros__parameters": p} for n, p in sections.items()}))
    return file


def test_calibrate_tracker_takes_the_cube(camera, cell, tmp_path):
    """A cube mounted with its x axis along the end effector's x, turned by 90 deg about it."""
    mounted = geometry.rotation_exp([np.pi / 2, 0, 0])
    x, z = mounted @ np.array([1.1, 0, 0]), mounted @ np.array([0, 0, 1.1])
    poses = iter([turned(0, 0, 0), turned(*x), turned(*z)])

    def ask(prompt):
        camera.ask("cube", matrix=next(poses))

    stored = commands.calibrate_tracker(cell, tmp_path / "out", ask)
    found = calibration.load(stored, "tracker", TrackerMounting, "cube DICT_4X4_50 0,1,2,3,4,5")
    rotation = geometry.quaternion_to_matrix(np.array(found.mounting_quaternion))
    assert np.degrees(geometry.rotation_angle(rotation, mounted)) < 2.0


def test_one_face_in_view_is_no_tracker(camera, cell, tmp_path, monkeypatch):
    camera.ask("cube", matrix=ONE_FACE)
    monkeypatch.setattr(commands, "CONNECT_S", 3.0)
    with pytest.raises(DeviceError, match="1 faces of the cube in view, 2 needed"):
        commands.calibrate_tracker(cell, tmp_path / "out", lambda prompt: None)
    assert not (tmp_path / "out").exists()


def test_a_cube_that_turns_while_it_should_be_held_still_is_refused(camera, cell, tmp_path):
    samples = [geometry.rotation_exp([0, 0, np.radians(3 * k)]) for k in range(20)]
    with pytest.raises(ConfigError, match=r"turned by 2\d deg .* \(about z\)"):
        calibration.still_pose([geometry.make_pose(r, PLACE) for r in samples], "about z")
    steady = [geometry.make_pose(geometry.rotation_exp([0, 0, s]), PLACE) for s in (-0.05, 0.05)]
    pose = calibration.still_pose(steady * 9 + [geometry.make_pose(samples[19], PLACE)], "any")
    assert np.degrees(geometry.rotation_angle(pose[:3, :3], np.eye(3))) < 0.01, "one is left out"
    assert np.allclose(calibration.still_pose([steady[0]] * 5, "any"), steady[0])


def test_doctor_looks_at_the_cube_behind_its_camera(camera, cell):
    def status():
        return {found.device: found for found in probe.probe_all(cell, timeout=0.5)}

    found = status()
    assert list(found) == ["arm", "hand", "camera_front", "camera_wrist", "tracker", "glove"]
    assert found["tracker"].level is Level.OK, found["tracker"]
    camera.ask("cube")
    found = status()
    assert found["tracker"].level is Level.STALE
    assert "0 faces of the cube in view, 2 needed" in found["tracker"].message


def test_a_camera_that_is_unplugged_is_the_trackers_trouble(camera, cell, monkeypatch):
    monkeypatch.setattr(aruco_camera, "OPEN_S", 1.0)
    settings = read(cell, "tracker_driver", TrackerDriverParameters)
    tracker = probe.cube_of(settings, read(cell, "camera_front", CameraDriverParameters))
    tracker.start()
    eventually(lambda: tracker.status().level is Level.OK)
    camera.ask("unplug")
    eventually(lambda: "camera_front: " in tracker.status().message)
    assert tracker.status().level is Level.ERROR
    camera.ask("plug")
    eventually(lambda: tracker.status().level is Level.OK)
    tracker.stop()
