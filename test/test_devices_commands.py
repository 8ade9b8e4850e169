"""`dexpie calibrate`, `dexpie emulate`, `dexpie doctor --hardware` and their parameter file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from emulated import eventually, gone, loopback, needs

from dexpie_ros import cli, geometry
from dexpie_ros.config import ConfigError
from dexpie_ros.control.retargeting import RetargetingConfig
from dexpie_ros.devices import calibration, commands
from dexpie_ros.devices.device import DeviceError, Level, Pace
from dexpie_ros.devices.driver_parameters import (
    ArmDriverParameters,
    CameraDriverParameters,
    GloveDriverParameters,
    HandDriverParameters,
    TrackerDriverParameters,
    read,
)
from dexpie_ros.devices.probe import probe_all
from dexpie_ros.emulators.peer import NAMES, Control, Emulator, EmulatorError

EXAMPLE = Path(__file__).parent.parent / "config/hardware.example.yaml"
CLASSES = {
    "arm_driver": ArmDriverParameters, "hand_driver": HandDriverParameters,
    "camera_front": CameraDriverParameters, "camera_wrist": CameraDriverParameters,
    "tracker_driver": TrackerDriverParameters, "glove_driver": GloveDriverParameters,
}  # fmt: skip


def write(path, **sections):
    sections = {node: {"ros__parameters": values} for node, values in sections.items()}
    path.write_text(yaml.safe_dump(sections))
    return path


# -- the parameter file ----------------------------------------------------------------------------
def test_the_example_names_parameters_that_the_drivers_have():
    sections = yaml.safe_load(EXAMPLE.read_text())
    assert set(CLASSES) < set(sections)
    for node, cls in CLASSES.items():
        assert read(EXAMPLE, node, cls).hardware == "real"
    assert read(EXAMPLE, "camera_wrist", CameraDriverParameters).realsense.serial == "823112065678"


def test_the_examples_arbiter_is_the_stacks():
    from dexpie_ros.graph_robot import ARBITER_LIMITS

    assert yaml.safe_load(EXAMPLE.read_text())["intervention_arbiter"]["ros__parameters"] == (
        ARBITER_LIMITS
    )


def test_dotted_and_nested_keys_and_full_names_mean_the_same(tmp_path):
    dotted = write(tmp_path / "a.yaml", arm_driver={"arm.limits.max_speed": 0.1, "arm.host": "h"})
    nested = tmp_path / "b.yaml"
    section = {"use_sim_time": False, "arm": {"host": "h", "limits": {"max_speed": 0.1}}}
    nested.write_text(yaml.safe_dump({"/cell/arm_driver": {"ros__parameters": section}}))
    a, b = (read(path, "arm_driver", ArmDriverParameters) for path in (dotted, nested))
    assert a == b and a.arm.limits.max_speed == 0.1
    assert read(dotted, "hand_driver", HandDriverParameters) == HandDriverParameters()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm_driver: {ros__parameters: {arm.hots: x}}", "did you mean host"),
        ("arm_driver: {arm.host: x}", "expected `ros__parameters:`"),
        ("arm_driver: {ros__parameters: {arm: 3, arm.host: x}}", "arm is a value and a group"),
        ("arm_driver: {ros__parameters: {arm.host: x, arm: 3}}", "arm"),
        ("[1]", "expected `key: value`"),
        (
            "arm_drivers: {ros__parameters: {}}",
            "arm_drivers is for no node; did you mean arm_driver",
        ),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, message):
    file = tmp_path / "cell.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read(file, "arm_driver", ArmDriverParameters)


@pytest.mark.parametrize(
    ("node", "key", "value"),
    [
        ("arm_driver", "command_timeout_s", "-1"),
        ("arm_driver", "command_timeout_s", ".nan"),
        ("hand_driver", "command_timeout_s", "3600"),
        ("arm_driver", "arm.payload", ".nan"),
        ("arm_driver", "arm.tcp", "[0, 0, .inf, 0, 0, 0]"),
        ("hand_driver", "hand.force_offset", "[0, 0, 0, 0, 0, .nan]"),
        ("tracker_driver", "vive.max_speed", "-1"),
        ("tracker_driver", "cube.max_error", ".nan"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_by_name(tmp_path, node, key, value):
    file = tmp_path / "cell.yaml"
    file.write_text(f"{node}: {{ros__parameters: {{{key}: {value}}}}}")
    with pytest.raises(ConfigError, match=key.rsplit(".", 1)[-1]):
        read(file, node, CLASSES[node])


def test_an_emulated_camera_wants_an_address():
    with pytest.raises(ValueError, match="expected host:port"):
        CameraDriverParameters(hardware="emulated", emulator="7001")


# -- thinning --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("device", "rate", "expected"), [(125, 125, 125), (500, 125, 125), (50, 25, 25), (120, 60, 60), (20, 25, 20)])  # fmt: skip
def test_a_stream_is_thinned_to_its_rate_in_spite_of_jitter(device, rate, expected):
    pace, rng = Pace(rate), np.random.default_rng(0)
    times = (np.arange(10 * device) / device + rng.uniform(-0.4, 0.4, 10 * device) / device) * 1e9
    taken = sum(pace.takes(10**18 + int(t)) for t in times)
    assert abs(taken / 10 - expected) < 0.03 * expected


def test_a_clock_that_was_set_back_does_not_silence_a_device():
    pace = Pace(25)
    assert pace.takes(10**18) and not pace.takes(10**18 + 1_000_000)
    assert pace.takes(5 * 10**17)


# -- calibrate -------------------------------------------------------------------------------------
def test_calibrate_glove_stores_what_teleop_takes(tmp_path):
    needs("zmq")
    with Emulator("manus", "--port", "0") as emulator:
        file = write(
            tmp_path / "cell.yaml", glove_driver={"glove.endpoint": emulator.ready["endpoint"]}
        )
        poses = iter((0.0, 1.0))
        stored = commands.calibrate_glove(
            file, tmp_path / "out", lambda prompt: emulator.ask("hold", closed=next(poses))
        )
    found = calibration.load(stored, "glove", RetargetingConfig, "right")
    assert found != RetargetingConfig()
    with pytest.raises(ConfigError, match="was made for 'right', not 'left'"):
        calibration.load(stored, "glove", RetargetingConfig, "left")


def test_calibrate_hand_measures_the_range(tmp_path):
    needs("pymodbus")
    with Emulator("inspire", "--host", "127.0.0.1", "--port", "0") as emulator:
        address = {"hand.host": "127.0.0.1", "hand.port": emulator.ready["port"]}
        file = write(tmp_path / "cell.yaml", hand_driver=address)
        stored = commands.calibrate_hand(file, tmp_path, lambda prompt: None)
        again = {**address, "calibration": str(stored)}
        file = write(tmp_path / "cell.yaml", hand_driver=again)
        settings = read(file, "hand_driver", HandDriverParameters).calibrated()
    assert max(settings.raw_closed) < 100 and min(settings.raw_open) > 900


def test_calibrate_tracker_finds_the_mounting(tmp_path):
    needs("openvr")
    turns = [np.zeros(3), np.array([np.pi / 2, 0, 0]), np.array([0, 0, np.pi / 2])]
    poses = [geometry.make_pose(geometry.rotation_exp(t), [0, 1, 0]).tolist() for t in turns]
    with Emulator("vive") as emulator:
        parameters = {
            "vive.serial": "LHR-0A1B2C3D", "vive.path_registry": emulator.ready["path_registry"],
        }  # fmt: skip
        file = write(tmp_path / "cell.yaml", tracker_driver=parameters)
        waiting = iter(poses)
        stored = commands.calibrate_tracker(
            file, tmp_path, lambda prompt: emulator.ask("place", matrix=next(waiting))
        )
    found = calibration.load(stored, "tracker", calibration.TrackerMounting, "LHR-0A1B2C3D")
    assert np.allclose(np.abs(found.mounting_quaternion), [0, 0, 0, 1], atol=1e-3)


def test_a_device_that_is_not_there_is_named(tmp_path, monkeypatch):
    needs("zmq")
    monkeypatch.setattr(commands, "CONNECT_S", 0.3)
    file = write(tmp_path / "cell.yaml", glove_driver={"glove.endpoint": "tcp://127.0.0.1:9"})
    with pytest.raises(DeviceError, match="glove: no sample"):
        commands.calibrate_glove(file, tmp_path, lambda prompt: None)
    assert not (tmp_path / "glove.yaml").exists()


def test_nobody_at_the_keyboard_stores_nothing(tmp_path, monkeypatch, capsys):
    needs("zmq")
    with Emulator("manus", "--port", "0") as emulator:
        file = write(
            tmp_path / "cell.yaml", glove_driver={"glove.endpoint": emulator.ready["endpoint"]}
        )

        def nobody(prompt):
            raise EOFError

        monkeypatch.setattr("builtins.input", nobody)
        words = ["calibrate", "glove", "--parameters", str(file), "--output", str(tmp_path)]
        assert cli.main(words) == 1
    assert "nothing was stored" in capsys.readouterr().out


# -- emulate ---------------------------------------------------------------------------------------
def test_emulate_starts_an_emulator_and_tells_it(capsys):
    address = f"{loopback()}:7100"
    process = subprocess.Popen(
        [sys.executable, "-m", "dexpie_ros.cli", "emulate", "realsense", "--port", "0",
         "--width", "32", "--height", "24", "--control", address],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["control"] == 7100
        assert cli.main(["emulate", "tell", address, "stall", "on=true"]) == 0
        assert int(capsys.readouterr().out) > 0
        assert cli.main(["emulate", "tell", address, "explode"]) == 1
        assert "try do=help" in capsys.readouterr().err
        assert cli.main(["emulate", "tell", address, "stall", "true"]) == 2
        with Control(*address.split(":")) as control:
            control.ask("quit")
        eventually(lambda: gone(process.pid))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_emulators_help_names_the_command(name, capsys, monkeypatch):
    monkeypatch.setenv("DEXPIE_REALTIME", "0")  # some put their process before all others
    with pytest.raises(SystemExit):
        cli.main(["emulate", name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: dexpie emulate {name} [-h]")


def test_nobody_to_tell(capsys):
    assert cli.main(["emulate", "tell", f"{loopback()}:7100", "help"]) == 1
    assert "no control channel" in capsys.readouterr().err
    assert cli.main(["emulate", "tell", "192.168.1.10:7100", "help"]) == 2
    capsys.readouterr()
    for words in (["nobody", "help"], ["127.0.0.2:", "help"], ["127.0.0.2:7100", "x", "on={"]):
        assert cli.main(["emulate", "tell", *words]) == 2
        said = capsys.readouterr().err
        assert words[-1] in said or ("for instance 127.0.0.2:7101" in said and words[0] in said)
        assert "int()" not in said
    with pytest.raises(EmulatorError):
        Control(loopback(), 7100)


# -- doctor ----------------------------------------------------------------------------------------
def test_doctor_looks_at_every_configured_device(tmp_path, capsys):
    for library in ("pymodbus", "zmq", "pyrealsense2"):
        needs(library)
    host = loopback()
    with (
        Emulator("ur5", "--host", host),
        Emulator("inspire", "--host", host),
        Emulator("realsense", "--host", host, "--serial", "1"),
        Emulator("manus", "--host", host),
    ):
        sections = {
            "arm_driver": {"arm.host": host},
            "hand_driver": {"hand.host": host},
            "camera_front": {
                "hardware": "emulated", "emulator": f"{host}:7001", "realsense.serial": "1",
            },
            "glove_driver": {"glove.endpoint": f"tcp://{host}:8000"},
        }  # fmt: skip
        file = write(tmp_path / "cell.yaml", **sections)
        found = {status.device: status for status in probe_all(file, timeout=10.0)}
        assert cli.main(["doctor", "--hardware", "--parameters", str(file)]) == 1
    good = [name for name, status in found.items() if status.level is Level.OK]
    assert good == ["arm", "hand", "camera_front", "glove"]
    assert found["camera_wrist"].message.startswith("not configured: serial is empty")
    assert found["tracker"].message.startswith("not configured: serial is empty")
    assert "not usable: camera_wrist, tracker" in capsys.readouterr().out
