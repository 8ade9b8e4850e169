"""Image features: encoded once, cached beside the bag, kept with the critic."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from critic_data import reach

from dexpie_ros.config import ConfigError
from dexpie_ros.critic import settings as presets
from dexpie_ros.critic.benchmarks import bench_critic
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.image_features import ImageFeatures
from dexpie_ros.critic.settings import FeatureConfig
from dexpie_ros.critic.train import train_critic
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.images import shrink
from dexpie_ros.policy.settings import EncoderConfig

SMALL = EncoderConfig(arch="small_cnn", weights="random", trainable=False, image_size=32)
LOOKING = FeatureConfig(parts=("tcp", "hand"), relations=False, images=("front",), encoder=SMALL)


class Counting:
    """Grey images that remember how often they were looked at."""

    def __init__(self, levels: np.ndarray) -> None:
        self.levels, self.asked = levels, 0

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index: int) -> np.ndarray:
        self.asked += 1
        return np.full((32, 32, 3), self.levels[index], np.uint8)

    def shrunk(self, index: int, size: int = 224) -> np.ndarray:
        return shrink(self[index], size)


def seen(number: int, folder: Path, success: bool = True) -> Episode:
    episode = reach(number, success=success, speed=0.01)
    path = folder / episode.id
    path.mkdir()
    levels = np.linspace(0, 255, len(episode)).astype(np.uint8)
    return dataclasses.replace(episode, path=path, cameras={"front": Counting(levels)})


def looked_at(episodes: list[Episode]) -> int:
    return sum(e.cameras["front"].asked for e in episodes)  # type: ignore[attr-defined]


def test_every_image_is_encoded_once(tmp_path: Path) -> None:
    episodes = [seen(k, tmp_path, k % 2 == 0) for k in range(6)]
    settings = dataclasses.replace(
        presets.best(200), features=LOOKING, epochs=3, hidden=16, crossfit=2
    )
    critic = train_critic(settings, episodes, tmp_path / "critic")
    # the preset leaves failed episodes out: their images are not even looked at
    assert looked_at(episodes) == sum(map(len, episodes[::2]))
    values = [critic.values(e) for e in episodes]
    frames = sum(map(len, episodes))
    assert looked_at(episodes) == frames
    train_critic(settings, episodes)
    assert looked_at(episodes) == frames
    again = Critic.load(tmp_path / "critic")
    assert again.hash == critic.hash
    np.testing.assert_array_equal(again.values(episodes[0]), values[0])
    # without the cache the same numbers come out
    fresh = dataclasses.replace(episodes[0], path=tmp_path / "nowhere")
    np.testing.assert_allclose(again.values(fresh), values[0], atol=1e-6)
    assert looked_at(episodes) == frames + len(episodes[0])


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    episode = seen(1, tmp_path)
    encode = ImageFeatures.build(LOOKING)
    rows = encode(episode)
    (cached,) = (episode.path / "features").iterdir()
    cached.write_bytes(b"rubbish")
    np.testing.assert_array_equal(encode(episode), rows)
    other = ImageFeatures.build(
        dataclasses.replace(LOOKING, encoder=dataclasses.replace(SMALL, image_size=48))
    )
    assert other.identity != encode.identity


def test_a_critic_without_its_encoder_is_refused(tmp_path: Path) -> None:
    episodes = [seen(k, tmp_path, k % 2 == 0) for k in range(4)]
    settings = dataclasses.replace(
        presets.best(200), features=LOOKING, epochs=1, hidden=8, crossfit=2
    )
    train_critic(settings, episodes, tmp_path / "critic")
    (tmp_path / "critic" / "encoder.safetensors").unlink()
    with pytest.raises(ConfigError, match="not this critic's image encoder"):
        Critic.load(tmp_path / "critic")


def test_an_encoder_that_changes_is_refused() -> None:
    with pytest.raises(CriticError, match="must be frozen"):
        ImageFeatures.build(
            dataclasses.replace(LOOKING, encoder=dataclasses.replace(SMALL, trainable=True))
        )
    with pytest.raises(ValueError, match="weights"):
        ImageFeatures.build(
            dataclasses.replace(LOOKING, encoder=dataclasses.replace(SMALL, weights=""))
        )


@pytest.mark.slow
def test_benchmark_runs() -> None:
    figures = bench_critic(quick=True)
    assert {"critic_speedup", "critic_train_s", "critic_relabel_s"} <= set(figures)
    assert float(figures["critic_speedup"]) > 1.0
