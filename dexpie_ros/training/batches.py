"""Windows as tensors: numbers on the device, pictures gathered one batch ahead.

A frozen encoder without augmentation is asked once for each picture, not once an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexpie_ros.episodes.episode import Episode, ImageSequence
from dexpie_ros.episodes.images import RecordedImages, shrink
from dexpie_ros.episodes.picture_file import CachedImages
from dexpie_ros.policy.actor import Batch
from dexpie_ros.policy.encoders import Encoder
from dexpie_ros.policy.normalizer import Normalizer
from dexpie_ros.training.recipes import TrainingSet

_FEATURE_BATCH = 64


class Frames:
    """Pictures of the windows, decoded or read from the cache when asked for."""

    def __init__(self, data: TrainingSet, cameras: Sequence[str], size: int) -> None:
        self.size = size
        self._images = [[episode.images(camera) for camera in cameras] for episode in data.episodes]
        self._windows, self._views = data.windows, len(cameras)
        self._pool = ThreadPoolExecutor(1, "frames")
        self._ahead: tuple[bytes, Future[NDArray[np.uint8]]] | None = None

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, V, S, S, 3) of windows ``rows``."""
        key = rows.tobytes()
        if self._ahead is not None and self._ahead[0] == key:
            return self._ahead[1].result()
        return self._read(rows)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Begin to gather ``rows`` while the device is busy."""
        self._ahead = (rows.tobytes(), self._pool.submit(self._read, rows))

    def close(self) -> None:
        """End the thread; what it was reading is dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = np.empty((len(rows), self._views, self.size, self.size, 3), np.uint8)
        windows = self._windows
        for i, row in enumerate(rows):
            for view, images in enumerate(self._images[windows.episode[row]]):
                out[i, view] = _shrunk(images, int(windows.tick[row]), self.size)
        return out


def _shrunk(images: ImageSequence, index: int, size: int) -> NDArray[np.uint8]:
    if isinstance(images, (RecordedImages, CachedImages)):
        return images.shrunk(index, size)  # halves while it decodes
    return shrink(images[index], size)


class WindowTensors:
    """All windows on the device: a batch is one gather."""

    def __init__(
        self,
        data: TrainingSet,
        normalizer: Normalizer,
        noise: float,
        device: torch.device,
        frames: Frames | None = None,
        features: Tensor | None = None,
    ) -> None:
        """``noise`` on the normalised vector; ``features`` (N, V * F) in place of ``frames``."""
        windows = data.windows
        self.vector = torch.from_numpy(normalizer.observation(windows.vector)).to(device)
        self.actions = torch.from_numpy(normalizer.actions(windows.actions)).to(device)
        self.valid = torch.from_numpy(windows.valid).to(device)
        self.optimality = torch.from_numpy(data.optimality.astype(np.float32)).to(device)
        self.weight = torch.from_numpy(data.weight.astype(np.float32)).to(device)
        self.noise, self.device, self.frames, self.features = noise, device, frames, features

    def __len__(self) -> int:
        return len(self.valid)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """The next batch will be ``rows``."""
        if self.frames is not None and self.features is None:
            self.frames.prefetch(rows)

    def batch(self, rows: NDArray[np.int64], generator: torch.Generator) -> Batch:
        """Windows ``rows`` with noise from ``generator``."""
        index = torch.from_numpy(rows).to(self.device)
        vector = self.vector[index]
        if self.noise:
            spread = torch.randn(vector.shape, generator=generator, device=vector.device)
            vector = vector + self.noise * spread
        images = None
        if self.features is not None:
            images = self.features[index]
        elif self.frames is not None:
            images = to_images(self.frames.gather(rows), self.device)
        return Batch(
            vector,
            self.actions[index],
            self.valid[index],
            self.optimality[index],
            self.weight[index],
            images,
        )


def to_images(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, V, S, S, 3) -> (B, V, 3, S, S) uint8 on the device, channels-last in memory."""
    tensor = torch.from_numpy(pixels)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True).permute(0, 1, 4, 2, 3)


def frozen_features(
    encoder: Encoder,
    frames: Frames,
    count: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Features (N, V * F) float32 of all windows, each picture encoded once."""
    encoder = encoder.to(device).eval()
    parts: list[Tensor] = []
    with torch.inference_mode():
        for first in range(0, count, _FEATURE_BATCH):
            rows = np.arange(first, min(first + _FEATURE_BATCH, count))
            frames.prefetch(np.arange(rows[-1] + 1, min(rows[-1] + 1 + _FEATURE_BATCH, count)))
            parts.append(encoder(to_images(frames.gather(rows), device)).float())
            if progress is not None:
                progress(int(rows[-1]) + 1, count)
    return torch.cat(parts).clone()


def cacheable(encoder: Encoder | None) -> bool:
    """Whether features stay the same during a run: frozen and never augmented."""
    if encoder is None or encoder.settings.trainable:
        return False
    return not (encoder.settings.random_crop or any(encoder.settings.color_jitter))


def missing_images(episodes: Sequence[Episode], cameras: Sequence[str]) -> list[str]:
    """Episodes that lack a camera, as ``id: cameras``."""
    lacking = [(e.id, [name for name in cameras if name not in e.cameras]) for e in episodes]
    return [f"{name}: {', '.join(absent)}" for name, absent in lacking if absent]
