"""A policy on disk: round trip, and refusal of whatever does not fit, with a sentence."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from policies import TINY_MLP, tiny_config, tiny_policy

from dexpie_ros import geometry
from dexpie_ros.config import ConfigError
from dexpie_ros.policy import files
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy, PolicyError
from dexpie_ros.policy.presets import PRESET_NAMES, preset
from dexpie_ros.policy.settings import InferenceSettings


@pytest.fixture
def saved(tmp_path):
    return tiny_policy().save(tmp_path / "policy")


def edit(folder, **changes):
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump(values))


def test_round_trip_gives_the_same_chunk(tmp_path):
    policy = tiny_policy()
    folder = policy.save(tmp_path / "policy")
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.md",
        "config.yaml",
        "model.safetensors",
        "normalizer.json",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]  # no leftovers
    again = Policy.load(folder)
    assert again.config == policy.config
    assert again.policy_id == policy.policy_id != "tiny"
    vector = np.linspace(-1, 1, 15)
    for a, b in zip(policy.sample(vector, np.eye(4)), again.sample(vector, np.eye(4)), strict=True):
        assert np.array_equal(a, b)
    assert "actions: relative-se3/rot6d-columns" in (folder / "card.md").read_text()


@pytest.mark.parametrize("departs", [False, True])
def test_a_policy_of_before_the_departure_had_a_ramp_acts_as_it_did(tmp_path, departs):
    policy = tiny_policy(denoiser=replace(TINY_MLP, depart_from_prefix=departs))
    folder = policy.save(tmp_path / "policy")
    settings = yaml.safe_load((folder / "config.yaml").read_text())["policy"]
    del settings["denoiser"]["depart_ramp"]
    if not departs:
        del settings["denoiser"]["depart_from_prefix"]
    edit(folder, policy=settings)
    again, prefix = Policy.load(folder), (np.eye(4)[None], np.full((1, 6), 0.3))
    assert again.config == policy.config
    for a, b in zip(
        policy.sample(np.zeros(15), np.eye(4), None, prefix),
        again.sample(np.zeros(15), np.eye(4), None, prefix),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_saving_replaces_an_older_policy_whole(saved):
    (saved / "stray").write_text("x")
    before = Policy.load(saved).policy_id
    newer = tiny_policy(seed=1)
    newer.save(saved)
    assert not (saved / "stray").exists()
    assert Policy.load(saved).policy_id == newer.policy_id != before
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


def test_a_failed_save_leaves_the_old_policy(saved, monkeypatch):
    before = Policy.load(saved).policy_id

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        tiny_policy(seed=1).save(saved)
    monkeypatch.undo()
    assert Policy.load(saved).policy_id == before
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch):
    if request.param == "two renames":  # as on a file system that cannot exchange
        monkeypatch.setattr(files, "_exchange", lambda fresh, directory: False)
    return request.param


def test_both_ways_of_replacing_leave_nothing_behind(saved, way):
    newer = tiny_policy(seed=1)
    newer.save(saved)
    assert Policy.load(saved).policy_id == newer.policy_id
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_old_policy_is_put_back_where_the_new_one_cannot_take_its_place(
    saved, error, monkeypatch
):
    before = Policy.load(saved).policy_id
    rename = os.rename

    def fail(source, target):
        if Path(target) == saved and not Path(source).name.endswith(".old"):
            raise error("no")
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda fresh, directory: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(error):
        tiny_policy(seed=1).save(saved)
    assert Policy.load(saved).policy_id == before
    assert [p.name for p in saved.parent.iterdir()] == ["policy"]


KILLED = """
import os, signal, sys
from pathlib import Path
from dexpie_ros.policy import files
calls = 0
def dying(inner):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **options)
    return call
if sys.argv[2] == "two renames":
    files._exchange = lambda fresh, directory: False
os.rename, files._exchange = dying(os.rename), dying(files._exchange)
files.shutil.rmtree = dying(files.shutil.rmtree)
files.replace_directory(Path(sys.argv[1]), {"config.yaml": b"new"})
"""


# before the old one is deleted; between the renames; before the old one is deleted
@pytest.mark.parametrize(("way", "at"), [("exchange", 2), ("two renames", 3), ("two renames", 4)])
def test_a_kill_while_replacing_leaves_a_whole_directory(tmp_path, way, at):
    folder = tmp_path / "policy"
    files.replace_directory(folder, {"config.yaml": b"old"})
    command = [sys.executable, "-c", KILLED, str(folder), way, str(at)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    files.recover_directory(folder)
    assert (folder / "config.yaml").read_bytes() in (b"old", b"new")
    files.remove_leftovers(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


def test_a_policy_that_a_kill_left_aside_is_found(saved):
    before = Policy.load(saved).policy_id
    saved.rename(saved.with_name(".policy.old"))
    assert Policy.load(saved).policy_id == before


def test_what_does_not_fit_is_refused(saved, tmp_path):
    with pytest.raises(PolicyError, match="no policy there"):
        Policy.load(tmp_path / "nothing")
    Policy.load(saved, offered=())  # needs the robot's own state only
    spec = ObservationSpec(parts=("tcp", "objects"), object_names=("bottle",))
    knowing = tiny_policy(observation=spec).save(tmp_path / "knowing")
    Policy.load(knowing, offered=("objects",))
    with pytest.raises(PolicyError, match=r"objects bottle, but no objects are at hand"):
        Policy.load(knowing, offered=("images",))
    values = yaml.safe_load((saved / "config.yaml").read_text())
    for change, message in (
        ({"format": "dexpie-policy/9"}, "dexpie-policy/9.*train it again"),
        ({"action_convention": "rows"}, "action_convention is 'rows'"),
        ({"sha256": {}}, "SHA-256"),
    ):
        edit(saved, **change)
        with pytest.raises(PolicyError, match=message):
            Policy.load(saved)
        edit(saved, **values)
    policy = values["policy"] | {"beta": 3}
    edit(saved, policy=policy)
    with pytest.raises(ConfigError, match=r"unknown key beta"):
        Policy.load(saved)


def test_settings_of_another_network_are_refused(saved):
    values = yaml.safe_load((saved / "config.yaml").read_text())
    values["policy"]["denoiser"]["width"] = 64
    edit(saved, **values)
    with pytest.raises(PolicyError, match="tensors do not fit"):
        Policy.load(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "normalizer.json"])
@pytest.mark.parametrize("damage", ["cut", "missing", "flipped"])
def test_damage_is_noticed(saved, name, damage):
    path = saved / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-3] if damage == "cut" else b"?" + data[1:])
    with pytest.raises(PolicyError, match=name):
        Policy.load(saved)


def test_the_prefix_comes_back_exactly_and_noise_follows_the_seed():
    policy = tiny_policy()
    rng = np.random.default_rng(0)
    tcp = geometry.make_pose(
        geometry.rotation_exp(rng.normal(0, 0.5, (4, 3))), rng.normal(0, 0.1, (4, 3))
    )
    hand = rng.uniform(0, 1, (4, 6))
    t_obs, vector = tcp[0], rng.normal(size=15)
    poses, openings = policy.sample(vector, t_obs, prefix=(tcp, hand), seed=3)
    assert np.array_equal(poses[:4], tcp)
    assert np.array_equal(openings[:4], hand)
    again = policy.sample(vector, t_obs, prefix=(tcp, hand), seed=3)
    assert np.array_equal(again[0], poses)
    other = policy.sample(vector, t_obs, prefix=(tcp, hand), seed=4)
    assert not np.array_equal(other[0][4:], poses[4:])
    free = policy.sample(vector, t_obs, seed=3)
    assert not np.array_equal(free[0][:4], tcp)


def test_without_noise_a_chunk_follows_from_the_observation_alone():
    policy = tiny_policy()
    vector = np.ones(15)

    def hands(seed, noise):
        settings = InferenceSettings(steps=3, noise=noise)
        return policy.sample(vector, np.eye(4), seed=seed, settings=settings)[1]

    assert np.array_equal(hands(3, 0.0), hands(4, 0.0))
    assert not np.array_equal(hands(3, 0.1), hands(4, 0.1))
    apart = [np.abs(hands(3, noise) - hands(3, 0.0)).max() for noise in (0.01, 0.1, 1.0)]
    assert 0.0 < apart[0] < apart[1] < apart[2]
    assert np.array_equal(hands(3, 1.0), policy.sample(vector, np.eye(4), seed=3,
        settings=InferenceSettings(steps=3))[1])  # fmt: skip
    with pytest.raises(ValueError):
        InferenceSettings(noise=1.5)


def test_only_the_preset_for_one_core_samples_without_noise():
    noise = {name: preset(name).inference.noise for name in PRESET_NAMES}
    assert noise == {"paper": 1.0, "authors": 1.0, "best": 1.0, "cpu": 0.0}


def test_deploy_time_settings_matter():
    policy = tiny_policy()
    vector = np.ones(15)
    base = policy.sample(vector, np.eye(4), settings=InferenceSettings(beta=1.5, steps=3))
    more = policy.sample(vector, np.eye(4), settings=InferenceSettings(beta=3.0, steps=3))
    fewer = policy.sample(vector, np.eye(4), settings=InferenceSettings(beta=1.5, steps=2))
    assert not np.array_equal(base[0], more[0])
    assert not np.array_equal(base[0], fewer[0])


def test_the_action_is_relative_to_the_observation():
    policy = tiny_policy()
    shift = geometry.make_pose(geometry.rotation_exp([0.2, -0.1, 0.4]), [1.0, 2.0, 3.0])
    still, _ = policy.sample(np.ones(15), np.eye(4))
    moved, _ = policy.sample(np.ones(15), shift)
    assert np.abs(moved - shift @ still).max() < 1e-12


def test_wrong_observation_length_is_refused():
    with pytest.raises(ValueError, match="trained on 15"):
        tiny_policy().sample(np.ones(14), np.eye(4))
    config = tiny_config(observation=ObservationSpec(parts=("tcp",)))
    assert config.observation.size == 9
