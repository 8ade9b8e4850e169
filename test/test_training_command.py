"""`dexpie train actor` on recorded episodes with pictures."""

import argparse
from pathlib import Path

import pytest
from factories import Recipe, write_episode

from dexpie_ros.config import ConfigError, read_yaml
from dexpie_ros.episodes.images import RecordedImages
from dexpie_ros.policy.policy import Policy
from dexpie_ros.training.commands import add_actor

SETTINGS = (
    "policy.observation={parts: [tcp, hand], images: [front]}",
    "policy.encoder={arch: small_cnn, weights: random, image_size: 32, trainable: false}",
    "loop.iterations=2",
    "loop.batch_size=8",
)


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab") / "episodes"
    for k in range(2):
        recipe = Recipe(steps=30, images=True, seed=k)
        write_episode(root / f"e{k}", recipe, kind="demonstration")
    return root


def train(bags: Path, output: Path, *more: str) -> Path:
    parser = argparse.ArgumentParser()
    add_actor(parser.add_subparsers())
    words = ["actor", "--recipe", "bc", "--episodes", str(bags), "--output", str(output)]
    for setting in SETTINGS:
        words += ["--set", setting]
    options = parser.parse_args([*words, *more])
    assert options.run(options) == 0
    return output / "policy"


def test_pictures_come_from_the_cache(bags, tmp_path, monkeypatch):
    first = train(bags, tmp_path / "first")
    assert Policy.load(first).config.observation.images == ("front",)
    assert list((bags.parent / "cache").glob("*/front.npy"))
    assert not list((bags.parent / "cache").glob("*/wrist.npy"))  # nobody asked for it

    def decode(*_):
        raise AssertionError("a JPEG is decoded although its picture is in the cache")

    monkeypatch.setattr(RecordedImages, "shrunk", decode)
    monkeypatch.setattr(RecordedImages, "__getitem__", decode)
    again = train(bags, tmp_path / "again")
    names = ("model.safetensors", "normalizer.json")
    assert [(first / n).read_bytes() for n in names] == [(again / n).read_bytes() for n in names]
    with pytest.raises(AssertionError, match="decoded"):
        train(bags, tmp_path / "other", "--cache", str(tmp_path / "cache"))


def test_a_policy_that_would_see_nothing_is_refused(tmp_path):
    bags = tmp_path / "robot"
    write_episode(bags / "e0", Recipe(steps=30, simulated=False), kind="demonstration")
    parser = argparse.ArgumentParser()
    add_actor(parser.add_subparsers())
    words = ["actor", "--recipe", "bc", "--episodes", str(bags), "--output", str(tmp_path / "x")]
    options = parser.parse_args(words)
    with pytest.raises(ConfigError, match=r"hold none.*--preset best"):
        options.run(options)
    assert not (tmp_path / "x").exists()
    (tmp_path / "blind.yaml").write_text(
        "policy: {observation: {parts: [tcp, hand]}}\nloop: {iterations: 1, batch_size: 8}\n"
    )
    options = parser.parse_args([*words, "--config", str(tmp_path / "blind.yaml")])
    assert options.run(options) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe=dexhil", "give --recipe dexhil"),
        ("loop.epochs=3", "loop.iterations=2 decides.*loop.iterations=0"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(bags, tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        train(bags, tmp_path / "x", "--set", setting)
    assert not (tmp_path / "x").exists()


def test_a_policy_says_what_data_it_is_of(bags, tmp_path):
    run = read_yaml(train(bags, tmp_path) / "run.yaml")
    assert run["episodes"] == ["e0", "e1"]
    assert run["config"]["loop"]["iterations"] == 2
    assert run["config"]["policy"]["optimality"]["kind"] == "none", "what the recipe takes"
    hashes = {run[k] for k in ("data_sha256", "labels_sha256", "episodes_sha256")}
    assert [len(h) for h in hashes] == [64] * 3
