"""Files that a stack is given: calibrations of a robot, and the parameter file with its sections."""

import pytest
import yaml

from dexpie_ros.config import ConfigError
from dexpie_ros.graph import stack
from dexpie_ros.graph_robot import uncalibrated


def by_name(specs):
    return {spec.name: spec for spec in specs}


def test_calibrations_in_the_folder_are_used(tmp_path):
    for kind in ("hand", "glove", "tracker"):
        (tmp_path / f"{kind}.yaml").touch()
    specs = stack("collect", sim=False, calibration=str(tmp_path))
    assert uncalibrated(specs) == ""
    named = by_name(specs)
    assert named["hand_driver"].parameters["calibration"] == str(tmp_path / "hand.yaml")
    teleop = named["teleop"].parameters
    assert teleop["tracker_calibration"] == str(tmp_path / "tracker.yaml")
    # the driver knows whose it must be
    assert named["tracker_driver"].parameters["calibration"] == teleop["tracker_calibration"]
    assert teleop["glove_calibration"] == str(tmp_path / "glove.yaml")


@pytest.mark.parametrize("missing", ["hand", "glove", "tracker"])
def test_a_calibration_that_is_missing_is_named(tmp_path, missing):
    for kind in {"hand", "glove", "tracker"} - {missing}:
        (tmp_path / f"{kind}.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        stack("collect", sim=False, calibration=str(tmp_path))
    said = str(caught.value)
    assert f"holds no {missing}.yaml" in said
    assert f"dexpie calibrate {missing} --output {tmp_path}" in said and "to go without" in said


def test_a_robot_without_calibration_is_warned_of(tmp_path):
    assert "dexpie calibrate" in uncalibrated(stack("collect", sim=False))
    assert not uncalibrated(stack("collect")) and not uncalibrated(
        stack("collect", hardware="emulated")
    )
    file = tmp_path / "cell.yaml"
    file.write_text(
        "teleop:\n  ros__parameters:\n    stale_seconds: 0.2  # tracker_calibration: x\n"
    )
    assert uncalibrated(stack("collect", sim=False, parameters=str(file)))
    file.write_text("teleop: {ros__parameters: {tracker_calibration: x}}\n")
    assert not uncalibrated(stack("collect", sim=False, parameters=str(file)))


def test_parameter_file_goes_to_every_node(tmp_path):
    file = tmp_path / "cell.yaml"
    file.touch()
    for spec in stack("collect", parameters=str(file)):
        own, more = [a for a, b in zip(spec.ros_arguments("own")[1:], spec.ros_arguments("own"), strict=False) if b == "--params-file"]  # fmt: skip
        assert (own, more) == ("own", str(file))


ARM = {"ros__parameters": {"arm.limits.max_speed": 0.1}}


@pytest.mark.parametrize(
    "sections",
    [
        {"arm_driver": ARM, "camera_wrist": ARM, "policy_server": ARM, "keyboard": ARM},
        {"/arm_driver": ARM},
        {"/": {"arm_driver": ARM}},
        {"/**": {**ARM, "arm_driver": ARM}},
        {"/**/arm_driver": ARM},
        {"/*": ARM},
    ],
)
def test_sections_that_nodes_read(sections, tmp_path):
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(sections))
    assert stack("collect", sim=False, parameters=file)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"arm_drivers": ARM}, "arm_drivers is for no node; did you mean arm_driver?"),
        ({"intervention_arbitr": ARM}, "did you mean intervention_arbiter?"),
        ({"/**": ARM, "/camera_rist": ARM}, "/camera_rist is for no node; did you mean camera_w"),
        ({"camera_driver": ARM}, "camera_driver is for no node"),
        ({"/lab/arm_driver": ARM}, "/lab/arm_driver is for no node; nodes are in no namespace"),
        ({"/lab": {"arm_driver": ARM}}, "/lab/arm_driver is for no node"),
        ({"/*/arm_driver": ARM}, "/*/arm_driver is for no node"),
        ({"something": ARM}, "something is for no node; known: simulated_cell, "),
        ({"arm_driver": {"arm.limits.max_speed": 0.1}}, "arm_driver: expected `ros__parameters:`"),
        (ARM, "and a node's name above"),
    ],
)
def test_a_section_that_no_node_reads_is_refused(sections, message, tmp_path):
    """ROS would skip it without a word, and limits would stay at their defaults."""
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(sections))
    with pytest.raises(ConfigError) as caught:
        stack("collect", sim=False, parameters=file)
    assert message in str(caught.value) and str(file) in str(caught.value)
