"""Whether a folder holds the same run: settings, labels, pictures, older versions, leftovers."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from policies import TINY_MLP
from synthetic import reach
from test_training_loop import FAST, Stop, config
from test_training_recipes import labels_for

from dexpie_ros.config import ConfigError, read_yaml
from dexpie_ros.policy.settings import ActionConfig, DiffusionConfig
from dexpie_ros.training.dataset import episodes_hash
from dexpie_ros.training.train import train_actor


@pytest.fixture(scope="module")
def episodes():
    return [*(reach(i, 40) for i in range(3)), reach(3, 40, "deployment")]


@pytest.mark.parametrize("finished", [True, False])
def test_other_labels_are_another_run(episodes, tmp_path, finished):
    labels = {e.id: labels_for(e) for e in episodes}

    def stop(now):
        if not finished:
            raise Stop

    if finished:
        train_actor(config("dexpie"), episodes, labels, tmp_path)
    else:
        with pytest.raises(Stop):
            train_actor(config("dexpie"), episodes, labels, tmp_path, stop)
    changed = labels | {"episode-3": labels_for(episodes[3], 0.75)}
    with pytest.raises(ConfigError, match="another labels"):
        train_actor(config("dexpie"), episodes, changed, tmp_path)
    train_actor(config("dexpie"), episodes, labels, tmp_path)


def test_a_run_of_an_older_version_is_resumed(episodes, tmp_path):
    """Its run.yaml lacks a setting and hashes that came later."""
    policy = train_actor(config(), episodes, None, tmp_path)
    before = (policy / "model.safetensors").read_bytes()
    run = read_yaml(tmp_path / "run.yaml")
    assert read_yaml(policy / "run.yaml") == run
    del run["labels_sha256"], run["episodes_sha256"], run["config"]["loop"]["tensorboard"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert (train_actor(config(), episodes, None, tmp_path) / "model.safetensors").read_bytes() == (
        before
    )
    with pytest.raises(ConfigError, match="another config"):
        train_actor(config(loop=replace(FAST, seed=1)), episodes, None, tmp_path)


def test_other_pictures_are_other_episodes():
    def hashed(value, pictures=True):
        picture = np.full((4, 4, 3), value, np.uint8)
        return episodes_hash([replace(reach(0, 3), cameras={"front": [picture] * 3})], pictures)

    assert hashed(1) == hashed(1) != hashed(2)
    assert hashed(1, False) == hashed(2, False)


def test_what_a_killed_run_left_is_cleared_away(episodes, tmp_path):
    for name in (".checkpoint.safetensors.x1", ".policy.x2"):
        (tmp_path / name).write_bytes(b"half")
    train_actor(config(), episodes, None, tmp_path)
    names = {"checkpoint.safetensors", "metrics.jsonl", "policy", "run.yaml"}
    assert {p.name for p in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"diffusion": DiffusionConfig(prediction="epsilon")}, "diffusion.prediction=sample"),
        ({"diffusion": DiffusionConfig(prediction="sample", train_steps=50)}, "train_steps=100"),
        (
            {"diffusion": DiffusionConfig(prediction="sample", schedule="linear")},
            "schedule=squaredcos_cap_v2",
        ),
        ({"action": ActionConfig(hand_symmetric=False)}, "action.hand_symmetric=True"),
        ({"action": ActionConfig(position_normalization="identity")}, "=isotropic"),
        (
            {"denoiser": replace(TINY_MLP, depart_from_prefix=True)},
            "denoiser.depart_from_prefix=False",
        ),
        (
            {"denoiser": replace(TINY_MLP, prefix_conditioning=False)},
            "denoiser.prefix_conditioning=True",
        ),
    ],
)
def test_a_start_from_weights_that_mean_something_else_is_refused(
    episodes, tmp_path, changes, says
):
    first = train_actor(config(), episodes, None, tmp_path / "first")
    second = replace(config(**changes), init_from=str(first))
    with pytest.raises(ConfigError, match=says):
        train_actor(second, episodes, None, tmp_path / "second")


def test_a_start_whose_normaliser_does_not_cover_the_new_windows_is_refused(episodes, tmp_path):
    first = train_actor(config(), episodes, None, tmp_path / "first")
    second = replace(config(), init_from=str(first))
    train_actor(second, episodes, None, tmp_path / "second")

    def wider(poses, factor=3.0):
        poses = poses.copy()
        poses[:, :3, 3] *= factor
        return poses

    far = [
        replace(e, tcp=wider(e.tcp), command_tcp=wider(e.command_tcp), info=e.info)
        for e in episodes
    ]
    with pytest.raises(ConfigError, match=r"does not cover these windows: an action lies at [12]"):
        train_actor(second, far, None, tmp_path / "third")
