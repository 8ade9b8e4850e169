"""How fast the critic is: `dexpie bench critic`.

``critic_speedup``: training on cached image features against encoding the images again in every
epoch, on the same made-up episodes: one pass of encoding and all of the training are run, and the
passes of the other epochs counted as that one. Processor seconds of one core.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dexpie_ros.control.types import STEP_NS, Mode, Source
from dexpie_ros.critic.image_features import ImageFeatures
from dexpie_ros.critic.label import LabelConfig, label, relabel
from dexpie_ros.critic.returns import ReturnConfig
from dexpie_ros.critic.settings import CriticConfig, FeatureConfig, best, paper
from dexpie_ros.critic.train import train_critic
from dexpie_ros.episodes.episode import Episode, EpisodeInfo, ImageSequence
from dexpie_ros.episodes.images import shrink
from dexpie_ros.policy.settings import EncoderConfig

CAMERAS = ("front", "wrist")


def bench_critic(quick: bool = False) -> dict[str, float | str]:
    """Training with four folds, labelling, and image features cached against encoded again.

    Takes about 15 s (quick) or two minutes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = _state(20 if quick else 100)
        figures.update(_images(8 if quick else 48, epochs=40))
    finally:
        torch.set_num_threads(threads)
    return figures


def _state(count: int) -> dict[str, float | str]:
    """The state critic of the CPU preset on ``count`` episodes of 150 steps, all epochs."""
    with tempfile.TemporaryDirectory() as folder:
        episodes = [_episode(k, 150, Path(folder)) for k in range(count)]
        returns = ReturnConfig(max_steps=300)  # of all episodes, failed ones included
        settings = dataclasses.replace(best(300), early_stopping=False, returns=returns)
        critic, training = _seconds(lambda: train_critic(settings, episodes))
        labels, labelling = _seconds(lambda: label(critic, episodes, LabelConfig()))
        _, again = _seconds(lambda: relabel(episodes, labels, LabelConfig()))
    return {
        "critic_episodes": float(count),
        "critic_train_s": training,
        "critic_label_s": labelling,
        "critic_relabel_s": again,
    }


def _images(steps: int, epochs: int) -> dict[str, float | str]:
    """One pass of encoding and ``epochs`` of training, both measured, set against each other.

    Encoding again in every epoch would run the first ``epochs`` times and the second once.
    """
    features = FeatureConfig(
        parts=("tcp", "hand"),
        relations=False,
        images=CAMERAS,
        encoder=EncoderConfig(weights="random", trainable=False),
    )
    settings: CriticConfig = dataclasses.replace(
        paper(300), features=features, epochs=epochs, validation=0.0
    )
    with tempfile.TemporaryDirectory() as folder:
        episodes = [_episode(k, steps // 2, Path(folder)) for k in range(2)]
        encoder = ImageFeatures.build(features)
        encoder.encode(episodes[0])  # the first call pays for memory and code paths
        _, encoding = _seconds(lambda: [encoder.encode(e) for e in episodes])
        train_critic(settings, episodes)
        _, training = _seconds(lambda: train_critic(settings, episodes))
    again = epochs * encoding + training
    return {
        "critic_frames": float(2 * (steps // 2)),
        "critic_encode_ms_per_frame": 1e3 * encoding / (2 * (steps // 2)),
        "critic_epochs": float(epochs),
        "critic_cached_s": training,
        "critic_encoded_again_s": again,
        "critic_speedup": again / training,
        "critic_speedup_first_run": again / (training + encoding),
    }


T = TypeVar("T")


def _seconds(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


class _Noise:
    """Images that no encoder can skip: 224 x 224, another one every step."""

    def __init__(self, steps: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._images = generator.integers(0, 256, (steps, 224, 224, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._images[index]

    def shrunk(self, index: int, size: int = 224) -> NDArray[np.uint8]:
        return shrink(self._images[index], size)


def _episode(number: int, steps: int, folder: Path) -> Episode:
    """A made-up episode that comes closer to one of three objects."""
    generator = np.random.default_rng(number)
    path = folder / f"episode-{number:03d}"
    path.mkdir()
    tcp = np.tile(np.eye(4), (steps, 1, 1))
    tcp[:, :3, 3] = np.linspace(generator.uniform(0.2, 0.4, 3), 0.1, steps)
    objects = np.zeros((steps, 3, 7))
    objects[..., :3], objects[..., 6] = generator.uniform(0.0, 0.3, (3, 3)), 1.0
    plain, absent = np.zeros((steps, 6)), np.full((steps, 6), np.nan)
    images: dict[str, ImageSequence] = {}
    if steps <= 64:
        images = {camera: _Noise(steps, number) for camera in CAMERAS}
    return Episode(
        info=EpisodeInfo(
            episode_id=f"episode-{number:03d}", outcome="success" if number % 3 else "failure"
        ),
        path=path,
        time_ns=np.arange(steps, dtype=np.int64) * STEP_NS,
        tcp=tcp,
        joints=plain,
        hand=plain,
        hand_force=plain,
        command_tcp=tcp,
        command_hand=plain,
        source=np.full(steps, Source.POLICY, np.uint8),
        mode=np.full(steps, Mode.POLICY, np.uint8),
        proposal_tcp=np.full((steps, 4, 4), np.nan),
        proposal_hand=absent,
        human_tcp=np.full((steps, 4, 4), np.nan),
        human_hand=absent,
        object_names=("bottle", "platform", "box"),
        objects=objects,
        cameras=images,
    )
