"""Robots and settings that the arm client refuses to work with, each with its reason."""

import time

import pytest
from emulated import eventually, loopback, needs
from test_devices_ur5 import make

from dexpie_ros.devices import ur_dashboard
from dexpie_ros.devices.arm_limits import ArmLimits
from dexpie_ros.devices.device import Level
from dexpie_ros.devices.ur5 import Ur5Config
from dexpie_ros.emulators.peer import Emulator

pytest_plugins = ("ur5_fixtures",)


@pytest.fixture(scope="module", autouse=True)
def _library():
    needs("rtde_control")


def test_wrong_model_is_refused(host, robot):
    arm = make(host, model="ur5e")
    arm.start()
    eventually(lambda: "is no ur5e" in arm.status().message)
    assert robot.ask("state")["servo_count"] == 0
    arm.stop()


def test_remote_control_off_and_500_hz():
    host = loopback()
    with Emulator("ur5", "--host", host, "--model", "ur5e") as robot:
        robot.ask("remote_control", on=False)
        arm = make(host, model="ur5e")
        arm.start()
        eventually(lambda: "enable remote control" in arm.status().message)
        robot.ask("remote_control", on=True)
        eventually(lambda: arm.ready)
        sample = arm.newest()
        time.sleep(0.5)
        later = arm.newest()
        rate = (later.cycles - sample.cycles) / (later.robot_time - sample.robot_time)
        assert 250 < rate < 600  # nominal 500; the other model has 125
        arm.stop()


def test_a_script_that_never_starts_is_reported(host, robot):
    robot.ask("script_starts", on=False)
    arm = make(host)
    arm.start()
    eventually(lambda: "did not start the control script" in arm.status().message)
    robot.ask("script_starts", on=True)
    eventually(lambda: arm.ready)
    arm.stop()


def test_occupied_registers_are_reported(host, robot):
    robot.ask("inputs_in_use", on=True)
    arm = make(host)
    arm.start()
    eventually(lambda: "in use" in arm.status().message.lower())
    assert arm.status().level is Level.ERROR
    arm.stop()


def test_limits_can_be_set_and_wrong_settings_are_named():
    assert Ur5Config(limits=ArmLimits(max_speed=0.1)).limits.max_speed == 0.1
    with pytest.raises(ValueError, match="gain"):
        Ur5Config(gain=5.0)
    with pytest.raises(ValueError, match="hold_after"):
        Ur5Config(hold_after=0.6)


def test_dashboard_times_out_instead_of_hanging():
    with pytest.raises(ur_dashboard.DashboardError, match="is the robot on"):
        ur_dashboard.ask(loopback(), "robotmode", timeout=0.2)
