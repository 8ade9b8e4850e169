"""Features of camera images from a frozen encoder, computed once and kept beside the bag.

Encoding is what costs: hundreds of times more than training the critic on what comes out. So every
episode is encoded once per encoder, into ``features/<identity>.safetensors``, and every epoch of
every fold reads that.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dexpie_ros.config import ConfigError, to_dict, write_atomic
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.settings import FeatureConfig
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.policy.encoders import Encoder, build_encoder
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.settings import PolicyConfig

_BATCH = 32
FILE_NAME = "encoder.safetensors"


class ImageFeatures:
    """Callable: episode -> rows (T, views x F) float32, in the order of ``settings.images``."""

    def __init__(
        self, settings: FeatureConfig, encoder: Encoder, device: str = "cpu", cache: bool = True
    ) -> None:
        self.settings, self.device, self.cache = settings, torch.device(device), cache
        self.encoder = encoder.to(self.device).eval()

    @classmethod
    def build(cls, settings: FeatureConfig, device: str = "cpu") -> ImageFeatures:
        """With the weights that ``settings.encoder`` names.

        Raises:
            ValueError: no weights, or an encoder that would not stay the same.
        """
        encoder = build_encoder(_policy_settings(settings))
        if encoder is None:
            raise CriticError("features.images: empty; name the cameras that the critic looks at")
        return cls(settings, encoder, device)

    @classmethod
    def load(cls, settings: FeatureConfig, directory: Path, device: str = "cpu") -> ImageFeatures:
        """With the weights that were saved with a critic."""
        encoder = build_encoder(_policy_settings(settings), load_weights=False)
        path = directory / FILE_NAME
        try:
            if encoder is None:
                raise KeyError("no cameras")
            encoder.load_state_dict(load_tensors(path.read_bytes()), strict=False)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise ConfigError(
                f"{path}: not this critic's image encoder ({error}); copy the whole directory again"
            ) from None
        return cls(settings, encoder, device)

    def save(self, directory: Path) -> None:
        """Keep the encoder with the critic, which is worth nothing without it."""
        write_atomic(directory / FILE_NAME, self._weights())

    @cached_property
    def identity(self) -> str:
        """Content hash of encoder and cameras: the same images give the same features."""
        described = f"{self.settings.images} {self.settings.encoder.image_size}"
        return hashlib.sha256(self._weights() + described.encode()).hexdigest()[:16]

    def __call__(self, episode: Episode) -> NDArray[np.float32]:
        path = episode.path / "features" / f"{self.identity}{_alignment(episode)}.safetensors"
        if self.cache and path.is_file():
            rows = _read(path)
            if rows is not None and len(rows) == len(episode):
                return rows
        rows = self.encode(episode)
        if self.cache and episode.path.is_dir():
            write_atomic(path, save({"features": rows}))
        return rows

    def encode(self, episode: Episode) -> NDArray[np.float32]:
        """The same without looking into the cache."""
        views = [episode.images(camera) for camera in self.settings.images]
        size = self.settings.encoder.image_size
        parts = []
        with torch.inference_mode():
            for first in range(0, len(episode), _BATCH):
                steps = range(first, min(first + _BATCH, len(episode)))
                pixels = np.stack([[view.shrunk(t, size) for view in views] for t in steps])
                images = torch.from_numpy(pixels).to(self.device).permute(0, 1, 4, 2, 3)
                parts.append(self.encoder(images).float().cpu().numpy())
        return np.concatenate(parts)

    def _weights(self) -> bytes:
        state = self.encoder.state_dict()
        return save_tensors({k: v.detach().cpu().contiguous() for k, v in state.items()})


def _policy_settings(settings: FeatureConfig) -> PolicyConfig:
    encoder = settings.encoder
    if encoder.trainable or encoder.random_crop or any(encoder.color_jitter):
        raise CriticError(
            "features.encoder: must be frozen and without augmentation (trainable=false, "
            "random_crop=0, color_jitter zeros): its features are computed once"
        )
    spec = ObservationSpec(parts=("tcp",), images=settings.images)
    return PolicyConfig(observation=spec, encoder=encoder)


def _alignment(episode: Episode) -> str:
    """Other pictures are in force at a step where the alignment is another."""
    if episode.align in (None, AlignConfig()):
        return ""
    plain = json.dumps(to_dict(episode.align), sort_keys=True)
    return "-" + hashlib.sha256(plain.encode()).hexdigest()[:16]


def _read(path: Path) -> NDArray[np.float32] | None:
    """Cached rows; None where the file is damaged: it is only a cache."""
    try:
        with safe_open(path, framework="numpy") as stream:
            return np.asarray(stream.get_tensor("features"), np.float32)
    except (SafetensorError, OSError, KeyError):
        return None
