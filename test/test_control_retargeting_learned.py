"""Hand geometry, the calibration motion, the learned retargeting and its training."""

import json

import numpy as np
import pytest
import torch
from glove_person import record
from safetensors.numpy import save_file

from dexpie_ros.config import ConfigError
from dexpie_ros.control import hand_geometry as geometry
from dexpie_ros.control.calibration_motion import CalibrationMotion, CalibrationRecording, postures
from dexpie_ros.control.retargeting import ERGONOMICS, LinearRetargeting, RetargetingConfig
from dexpie_ros.control.retargeting_learned import (
    COLUMNS,
    INPUTS,
    LearnedRetargeting,
    untrained,
    weight_shapes,
)
from dexpie_ros.control.teleop import Teleop, TeleopConfig
from dexpie_ros.training.retarget import RetargetConfig, find_lag, train_retargeting

QUICK = RetargetConfig(iterations=200, learning_rate=0.03)


@pytest.fixture(scope="module")
def recording():
    return record(seed=0)


@pytest.fixture(scope="module")
def trained(recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retargeting")
    torch.set_num_threads(1)
    return folder, train_retargeting(QUICK, recording, folder)


def test_fingertips_are_where_the_simulated_hand_has_them():
    mujoco = pytest.importorskip("mujoco")
    from dexpie_ros.simulation import robot_model as robot

    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><compiler angle="radian" eulerseq="XYZ"/><default>{robot.DEFAULTS}</default>'
        f"<asset>{robot.MATERIALS}</asset><worldbody>{robot.hand_xml()}</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    for opening in np.random.default_rng(0).uniform(size=(4, 6)):
        angles = robot.HAND_RANGE * (1 - opening)
        bends = {
            "thumb_proximal_pitch": angles[4],
            "thumb_intermediate": 1.334 * angles[4],
            "thumb_distal": 0.667 * angles[4],
            "thumb_proximal_yaw": angles[5],
        }
        for name, angle in zip(("pinky", "ring", "middle", "index"), angles, strict=False):
            bends |= {
                f"{name}_proximal": angle,
                f"{name}_intermediate": 1.06399 * angle - 0.04545,
            }
        for name, angle in bends.items():
            data.qpos[model.joint(f"{name}_joint").qposadr[0]] = angle
        mujoco.mj_kinematics(model, data)
        hand = data.body("hand")
        for name, tip in zip(
            ("pinky", "ring", "middle", "index", "thumb"), geometry.fingertips(opening), strict=True
        ):
            pad, size = data.geom(f"{name}_tip"), model.geom(f"{name}_tip").size
            end = pad.xpos - pad.xmat.reshape(3, 3)[:, 2] * size[1]
            expected = hand.xmat.reshape(3, 3).T @ (end - hand.xpos)
            np.testing.assert_allclose(tip, expected, atol=1e-12)


def test_geometry_is_the_same_for_numpy_and_torch():
    openings = np.random.default_rng(1).uniform(size=(7, 6))
    np.testing.assert_allclose(
        geometry.thumb_distances(torch.from_numpy(openings), torch).numpy(),
        geometry.thumb_distances(openings),
        atol=1e-15,
    )


def test_the_thumb_meets_index_and_middle():
    for finger in (2, 3):
        distance = geometry.thumb_distances(geometry.pinch(finger))[finger]
        assert distance == pytest.approx(geometry.PINCH_CONTACT, abs=1e-3)
    assert geometry.thumb_distances(np.ones(6)).min() > 0.06


def test_the_motion_shows_every_posture_in_every_round_without_jumps():
    motion = CalibrationMotion(rounds=2, seed=3)
    assert sorted(motion.names[1:]) == sorted(list(postures()) * 2)
    times = np.arange(0, motion.duration_s, 0.01)
    shown = np.array([motion.openings(t) for t in times])
    assert np.abs(np.diff(shown, axis=0)).max() <= 1.5 * 0.01 + 1e-9
    np.testing.assert_array_equal(motion.openings(1.9), np.ones(6))
    np.testing.assert_allclose(motion.openings(3.5), postures()[motion.names[1]], atol=1e-12)
    assert motion.prompt(3.5) == f"2/{len(motion.names)}: {motion.names[1]}"
    np.testing.assert_array_equal(motion.openings(1e9), np.ones(6))


def test_a_recording_goes_through_its_file(recording, tmp_path):
    file = tmp_path / "motion.json"
    recording.save(file)
    read = CalibrationRecording.load(file)
    np.testing.assert_array_equal(read.time_ns, recording.time_ns)
    np.testing.assert_allclose(read.ergonomics, recording.ergonomics, atol=1e-4)
    assert len(read) == len(recording)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 1"),
        ({"names": ["a"]}, "`names`"),
        ({"time_ns": [2, 1]}, "do not increase"),
        ({"ergonomics": [[1.0]]}, "shapes"),
        ({"ergonomics": "x"}, "time_ns, ergonomics or openings"),
        ({"openings": None}, "time_ns, ergonomics or openings|shapes"),
        ({"openings": [[float("nan")] * 6] * 2}, "NaN"),
    ],
)
def test_broken_recordings_are_named(tmp_path, change, says):
    file = tmp_path / "motion.json"
    good = {"format": 1, "names": list(ERGONOMICS), "time_ns": [1, 2]}
    good |= {"ergonomics": [[0.0] * 20] * 2, "openings": [[1.0] * 6] * 2}
    file.write_text(json.dumps(good))
    CalibrationRecording.load(file)
    file.write_text(json.dumps(good | change))
    with pytest.raises(ConfigError, match=says) as error:
        CalibrationRecording.load(file)
    assert str(file) in str(error.value)


def test_samples_without_all_values_are_refused():
    with pytest.raises(ConfigError, match="sample 0 lacks ThumbMCPSpread"):
        CalibrationRecording.from_samples([1], [dict.fromkeys(ERGONOMICS[1:], 0.0)], [np.ones(6)])
    with pytest.raises(ConfigError, match="no such recording"):
        CalibrationRecording.load("/nowhere/motion.json")


def test_the_reaction_time_is_found(recording):
    assert find_lag(recording, len(recording), 1.0) == pytest.approx(0.35, abs=0.03)


def test_learned_beats_linear_on_the_held_out_part_and_the_fingers_keep_their_range(trained):
    _, report = trained
    assert report.heldout > 700 and report.pinch_samples > 100
    linear, learned = report.linear, report.learned
    for channel, error in learned.opening_rmse.items():
        assert error < 0.6 * linear.opening_rmse[channel], channel
    assert learned.pinch_index_mm < 0.35 * linear.pinch_index_mm
    assert learned.pinch_middle_mm < 0.35 * linear.pinch_middle_mm
    assert learned.finger_range > 0.95


def test_a_person_who_copies_carelessly_is_still_learned_from(tmp_path):
    sloppy = record(seed=1, sloppiness=0.1)
    report = train_retargeting(QUICK, sloppy, tmp_path)
    assert report.learned.pinch_index_mm < 0.35 * report.linear.pinch_index_mm
    assert report.learned.finger_range > 0.95


def test_the_geometry_moves_the_thumb_and_leaves_the_frozen_fingers(recording, trained, tmp_path):
    with_geometry = LearnedRetargeting.load(trained[0])
    settings = RetargetConfig(iterations=200, learning_rate=0.03, geometry_weight=0.0)
    train_retargeting(settings, recording, tmp_path)
    without = LearnedRetargeting.load(tmp_path)
    degrees = recording.ergonomics[:, COLUMNS]
    a, b = with_geometry.openings(degrees), without.openings(degrees)
    np.testing.assert_array_equal(a[:, :4], b[:, :4])
    assert np.abs(a[:, 4:] - b[:, 4:]).max() > 1e-3


def test_training_is_repeatable_and_reported(recording, trained, tmp_path):
    folder, _ = trained
    model = LearnedRetargeting.load(folder)
    values = dict(zip(INPUTS, np.linspace(5, 60, len(INPUTS)), strict=True))
    assert model(values).shape == (6,)
    report = json.loads((folder / "report.json").read_text())
    assert report["learned"]["pinch_index_mm"] < report["linear"]["pinch_index_mm"]
    assert model.provenance["settings"]["iterations"] == 200
    train_retargeting(QUICK, recording, tmp_path)
    again = LearnedRetargeting.load(tmp_path)
    for name, value in model.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


def test_no_glove_value_drives_the_hand_far_from_the_linear_map(trained):
    model = LearnedRetargeting.load(trained[0])
    linear = LinearRetargeting(model.linear)
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = dict(zip(INPUTS, rng.uniform(-200, 200, len(INPUTS)), strict=True))
        hand = model(values)
        assert ((hand >= 0) & (hand <= 1)).all()
        assert np.abs(hand - linear(values)).max() <= model.bound + 1e-12
    del values["IndexPIPStretch"]
    with pytest.raises(ValueError, match="IndexPIPStretch"):
        model(values)


def test_untrained_is_linear_and_teleop_takes_a_directory(tmp_path):
    model = untrained(RetargetingConfig())
    values = dict(zip(INPUTS, np.linspace(0, 70, len(INPUTS)), strict=True))
    np.testing.assert_allclose(model(values), LinearRetargeting()(values))
    model.save(tmp_path)
    teleop = Teleop(TeleopConfig(learned_retargeting=str(tmp_path)))
    assert teleop.update_glove(values, "right", 1)
    with pytest.raises(ConfigError, match="dexpie train retarget"):
        Teleop(TeleopConfig(learned_retargeting=str(tmp_path / "none")))


def test_models_that_do_not_fit_are_named(tmp_path):
    model = untrained(RetargetingConfig())
    model.save(tmp_path)
    settings = json.loads((tmp_path / "retargeting.json").read_text())
    weights = {name: np.zeros(shape) for name, shape in weight_shapes(16).items()}

    def refused(says, settings=settings, weights=weights):
        (tmp_path / "retargeting.json").write_text(json.dumps(settings))
        save_file(weights, tmp_path / "retargeting.safetensors")
        with pytest.raises(ConfigError, match=says):
            LearnedRetargeting.load(tmp_path)

    refused("format 1", settings | {"format": 9})
    refused("bound = 7", settings | {"bound": 7})
    other = {"ergonomics": "RingMCPStretch", "open_deg": 0.0, "closed_deg": 90.0}
    refused("must follow", settings | {"linear": settings["linear"] | {"little": other}})
    refused("do not fit", weights=weights | {"thumb_in": np.zeros((7, 16))})
    refused("do not fit", weights={})
    refused("NaN", weights=weights | {"thumb_in": np.full((8, 16), np.nan)})
    (tmp_path / "retargeting.safetensors").write_bytes(b"broken")
    with pytest.raises(ConfigError, match=r"retargeting\.safetensors"):
        LearnedRetargeting.load(tmp_path)
    (tmp_path / "retargeting.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        LearnedRetargeting.load(tmp_path)


def test_recordings_that_teach_nothing_are_refused(recording, tmp_path):
    few = CalibrationRecording(
        recording.time_ns[:50], recording.ergonomics[:50], recording.openings[:50]
    )
    with pytest.raises(ConfigError, match="at least 300"):
        train_retargeting(QUICK, few, tmp_path)
    still = CalibrationRecording(
        recording.time_ns, recording.ergonomics, np.ones_like(recording.openings)
    )
    with pytest.raises(ConfigError, match="little was not shown"):
        train_retargeting(QUICK, still, tmp_path)
    dead = CalibrationRecording(
        recording.time_ns, np.zeros_like(recording.ergonomics), recording.openings
    )
    with pytest.raises(ConfigError, match="less than 10 deg"):
        train_retargeting(QUICK, dead, tmp_path)
    assert not list(tmp_path.iterdir())  # nothing half-written
