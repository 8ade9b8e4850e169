"""From cameras' pictures to what the encoder takes; the size is made by `episodes.images.shrink`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.episodes.images import shrink

Picture = NDArray[np.uint8]


def stack(pictures: Mapping[str, Picture], cameras: Sequence[str], size: int) -> Picture:
    """RGB pictures (H, W, 3) by camera -> (V, 3, size, size) uint8 in the order of ``cameras``.

    The memory is channels-last, as the network wants it. Raises ValueError for anything that is no
    uint8 RGB picture.
    """
    rows = []
    for name in cameras:
        picture = pictures[name]
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"camera {name}: picture of shape {picture.shape}, {picture.dtype}; expected "
                "(H, W, 3) uint8 RGB"
            )
        rows.append(shrink(picture, size))
    return np.stack(rows).transpose(0, 3, 1, 2)
