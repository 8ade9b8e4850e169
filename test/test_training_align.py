"""The section `align` of both training configs: what was inspected is what is learned from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from critic_data import reach
from factories import Recipe, write_episode
from test_evaluation_commands import run
from test_training_command import train

from dexpie_ros.config import ConfigError, read_yaml
from dexpie_ros.critic import settings as critics
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.image_features import ImageFeatures
from dexpie_ros.critic.settings import FeatureConfig
from dexpie_ros.critic.train import train_critic
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.policy.settings import EncoderConfig
from dexpie_ros.training.batches import WindowTensors
from dexpie_ros.training.train import ActorConfig, actor_preset, train_actor

HAND, FRONT = "/hand/joint_states", "/camera/front/color/image_raw/compressed"
ONE_STEP = AlignConfig(latency_ms={HAND: 40, FRONT: 40})


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lab") / "episodes"
    for k in range(4):
        recipe = Recipe(steps=30, images=True, seed=k)
        outcome = "failure" if k == 3 else "success"
        kind = "deployment" if k == 3 else "demonstration"
        write_episode(root / f"e{k}", recipe, kind=kind, outcome=outcome)
    return root


def written(path: Path, align: AlignConfig, section: bool) -> Path:
    values = {"latency_ms": align.latency_ms}
    path.write_text(yaml.safe_dump({"align": values} if section else values))
    return path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Observation vectors as the loop gets them, and the pictures of window 3."""
    arrays: list[np.ndarray] = []
    make = WindowTensors.__init__

    def spy(self, data, *args, **more) -> None:  # type: ignore[no-untyped-def]
        arrays.append(data.windows.vector)
        pictures = data.episodes[0].cameras
        arrays.append(np.array(pictures["front"].shrunk(3, 32)))
        make(self, data, *args, **more)

    monkeypatch.setattr(WindowTensors, "__init__", spy)
    return arrays


def test_an_actor_sees_episodes_aligned_as_its_config_says(bags, tmp_path, seen):
    late = written(tmp_path / "late.yaml", ONE_STEP, section=True)
    file = written(tmp_path / "align.yaml", ONE_STEP, section=False)
    setting = f"align.latency_ms={{{HAND}: 40, {FRONT}: 40}}"
    train(bags, tmp_path / "plain")
    for name, words in {
        "config": ("--config", str(late)),
        "file": ("--align", str(file)),
        "set": ("--set", setting),
    }.items():
        train(bags, tmp_path / name, *words)
        for where in (tmp_path / name / "run.yaml", tmp_path / name / "policy/run.yaml"):
            assert read_yaml(where)["config"]["align"]["latency_ms"] == ONE_STEP.latency_ms
    plain, *others = seen[::2]
    hand = slice(9, 15)  # behind the pose of the TCP
    assert not np.array_equal(plain[:, hand], others[0][:, hand])
    # What is stamped 40 ms late was there one step before.
    assert np.array_equal(others[0][:20, hand], plain[1:21, hand])
    assert np.array_equal(others[0][:20, :9], plain[:20, :9])
    picture, *shifted = seen[1::2]
    assert not np.array_equal(picture, shifted[0])
    for vector, front in zip(others, shifted, strict=True):
        assert np.array_equal(vector, others[0]) and np.array_equal(front, shifted[0])


def test_other_alignments_have_other_entries_and_runs(bags, tmp_path):
    cache = ("--cache", str(tmp_path / "cache"))
    train(bags, tmp_path / "run", *cache)
    setting = ("--set", f"align.latency_ms={{{HAND}: 40}}")
    with pytest.raises(ConfigError, match="another config"):
        train(bags, tmp_path / "run", *cache, *setting)
    train(bags, tmp_path / "late", *cache, *setting)
    entries = [read_yaml(path) for path in (tmp_path / "cache").glob("*/entry.json")]
    assert len(entries) == 8
    assert sum(e["settings"]["align"]["latency_ms"] == {HAND: 40.0} for e in entries) == 4


def test_a_critic_and_its_labels_see_episodes_aligned_as_its_config_says(bags, tmp_path):
    late = written(tmp_path / "late.yaml", ONE_STEP, section=True)
    file = written(tmp_path / "align.yaml", ONE_STEP, section=False)
    few = "--set=epochs=1", "--set=crossfit=2", "--set=features.relations=false"
    hashes = []
    for name, words in {
        "plain": (),
        "config": ("--config", str(late)),
        "file": ("--align", str(file)),
        "set": ("--set", f"align.latency_ms={{{HAND}: 40, {FRONT}: 40}}"),
    }.items():
        folder = str(tmp_path / name)
        words = (
            "critic",
            "train",
            str(bags),
            "--output",
            folder,
            "--max-steps",
            "60",
            *few,
            *words,
        )
        assert run(*words) == 0
        hashes.append(Critic.load(folder).hash)
    assert hashes[0] != hashes[1] == hashes[2] == hashes[3]
    critic = Critic.load(tmp_path / "config")
    assert critic.settings.align == ONE_STEP
    assert read_yaml(tmp_path / "config/config.yaml")["align"]["latency_ms"] == ONE_STEP.latency_ms
    assert run("label", str(tmp_path / "config"), str(bags), "--tag", "late") == 0
    collection = Collection(bags)
    with pytest.raises(EpisodeError, match=r"the section `align` says .*hand/joint_states"):
        critic.values(collection.read()[0])
    assert len(critic.values(collection.read(ONE_STEP)[0])) == 30


def test_a_critic_of_before_there_was_a_choice_is_still_read(bags, tmp_path):
    settings = dataclasses.replace(
        critics.best(60), epochs=1, crossfit=2, features=FeatureConfig(relations=False)
    )
    critic = train_critic(settings, Collection(bags).read(), tmp_path)
    config = read_yaml(tmp_path / "config.yaml")
    del config["align"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert Critic.load(tmp_path).hash == critic.hash


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("align.latncy_ms={}", "unknown key align.latncy_ms; did you mean latency_ms"),
        ("align.latency_ms={/hand: 4}", "nothing is aligned from /hand"),
        ("align.tolerance_ms=-1", "align.tolerance_ms"),
        ("align=4", "align"),
    ],
)
def test_what_cannot_be_aligned_is_refused_by_name(bags, tmp_path, setting, says):
    with pytest.raises(ConfigError, match=says):
        train(bags, tmp_path, "--set", setting)
    with pytest.raises(ConfigError, match=says):
        run("critic", "train", str(bags), "--output", str(tmp_path), "--max-steps", "60",
            "--set", setting)  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_episodes_aligned_otherwise_than_the_config_says_are_refused(bags, tmp_path):
    episodes = Collection(bags).read(ONE_STEP)
    with pytest.raises(EpisodeError, match=r"was aligned with .*40.*, the section `align` says"):
        train_actor(actor_preset("cpu", "bc"), episodes, None, tmp_path)
    with pytest.raises(EpisodeError, match="was aligned with"):
        train_critic(critics.best(60), episodes)
    assert ActorConfig().align == AlignConfig() == critics.best(60).align


def test_image_features_of_a_critic_are_kept_by_alignment(bags):
    small = EncoderConfig(arch="small_cnn", weights="random", trainable=False, image_size=32)
    encode = ImageFeatures.build(FeatureConfig(images=("front",), encoder=small))
    (plain, *_), (late, *_) = Collection(bags).read(), Collection(bags).read(ONE_STEP)
    first = encode(plain)
    assert np.array_equal(encode(late), encode.encode(late))
    assert not np.array_equal(encode(late), first)
    assert np.array_equal(encode(plain), first)
    assert len(list((plain.path / "features").iterdir())) == 2
    # Synthetic episodes, which nothing was aligned for, go with any section.
    assert reach(1).align is None
