"""From a camera's picture to what the encoder takes: one place for size and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def shrink(picture: Picture, size: int) -> Picture:
    """RGB (H, W, 3) uint8 -> (3, size, size) uint8, bilinear, the whole field of view."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"picture of shape {picture.shape}, {picture.dtype}; expected (H, W, 3) uint8 RGB"
        )
    resized = picture
    if picture.shape[:2] != (size, size):
        resized = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def stack(pictures: Mapping[str, Picture], cameras: Sequence[str], size: int) -> Picture:
    """Pictures by camera name -> (V, 3, size, size) uint8 in the order of ``cameras``."""
    return np.stack([shrink(pictures[name], size) for name in cameras])
