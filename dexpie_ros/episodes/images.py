"""Recorded images: decoded when looked at, and brought to the size that networks see.

One function decides how a picture becomes 224x224, :func:`shrink`; the cache and the policy at run
time both use it, so that a network never meets another filter than it was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dexpie_ros.episodes.episode import EpisodeError

Image = NDArray[np.uint8]
_RGB = int(getattr(cv2, "IMREAD_COLOR_RGB", 0))
"""Decode into RGB straight away; OpenCV before 4.11 cannot."""
IMAGE_SIZE = 224


def encode_jpeg(rgb: Image, quality: int = 90) -> bytes:
    """uint8 (height, width, 3) RGB -> JPEG."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise EpisodeError(f"an image of shape {rgb.shape} cannot be encoded as JPEG")
    return data.tobytes()


def decode_jpeg(data: bytes | memoryview) -> Image:
    """JPEG or PNG -> uint8 (height, width, 3) RGB; ValueError for anything else."""
    return _decode(data, cv2.IMREAD_COLOR)


def shrink(rgb: Image, size: int = IMAGE_SIZE) -> Image:
    """(height, width, 3) -> (size, size, 3): halved by averaging while twice too large, then bilinear.

    Bilinear alone looks at one pixel in eight of a 640x480 picture and aliases.
    """
    while min(rgb.shape[:2]) >= 2 * size:
        rgb = _resize(rgb, rgb.shape[1] // 2, rgb.shape[0] // 2, cv2.INTER_AREA)
    if rgb.shape[:2] == (size, size):
        return rgb
    return _resize(rgb, size, size, cv2.INTER_LINEAR)


def decode_shrunk(data: bytes | memoryview, size: int = IMAGE_SIZE) -> Image:
    """``shrink(decode_jpeg(data))``, several times faster: JPEG halves while it decodes.

    The two differ by rounding and by the corners of the DCT blocks (under 1 % of full scale on
    average); a test holds them together.
    """
    side = min(jpeg_size(data))
    flags = cv2.IMREAD_COLOR
    if side >= 4 * size:
        flags = cv2.IMREAD_REDUCED_COLOR_4
    elif side >= 2 * size:
        flags = cv2.IMREAD_REDUCED_COLOR_2
    return shrink(_decode(data, flags), size)


def jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """(height, width) from the header of a JPEG; (0, 0) where it is none."""
    view = memoryview(data)
    position = 2
    while position + 9 <= len(view) and view[position] == 0xFF:
        marker = view[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return (
                int.from_bytes(view[position + 5 : position + 7], "big"),
                int.from_bytes(view[position + 7 : position + 9], "big"),
            )
        position += 2 + int.from_bytes(view[position + 2 : position + 4], "big")
    return 0, 0


def _resize(image: Image, width: int, height: int, interpolation: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)


def _decode(data: bytes | memoryview, flags: int) -> Image:
    """RGB; ``flags`` are those that ask OpenCV for BGR."""
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    if _RGB:
        flags = flags & ~cv2.IMREAD_COLOR | _RGB
    if len(data) == 0:
        raise ValueError("an empty image")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"an image cannot be decoded: {error.err}") from None
    if image is None:
        raise ValueError("an image cannot be decoded")
    return np.asarray(image if _RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(frozen=True, eq=False)
class RecordedImages:
    """Images of one camera by control step; row i is picture ``rows[i]`` of the recording."""

    where: str
    """File and topic, for messages."""
    encoded: Sequence[memoryview]
    """JPEG, or rgb8 pixels where ``raw_shape`` is given."""
    rows: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    """(pictures,) capture stamps."""
    raw_shape: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Image:
        row = int(self.rows[index])
        if self.raw_shape is not None:
            return np.frombuffer(self.encoded[row], np.uint8).reshape(*self.raw_shape, 3)
        return self._checked(row, index, decode_jpeg)

    def shrunk(self, index: int, size: int = IMAGE_SIZE) -> Image:
        """As networks see it: (size, size, 3)."""
        row = int(self.rows[index])
        if self.raw_shape is not None:
            return shrink(self[index], size)
        return self._checked(row, index, lambda data: decode_shrunk(data, size))

    def _checked(self, row: int, index: int, decode: object) -> Image:
        try:
            return decode(self.encoded[row])  # type: ignore[operator,no-any-return]
        except ValueError as error:
            raise EpisodeError(
                f"{self.where}: step {index}: {error}; exclude the episode or record it anew"
            ) from None
