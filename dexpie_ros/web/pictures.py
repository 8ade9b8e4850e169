"""Pictures straight from the bag: JPEG bytes as they were recorded, and small ones for the table.

A small picture costs one chunk of the bag, found through its index, however long the bag is.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
from rosbags.serde import SerdeError

from dexpie_ros import messages
from dexpie_ros.contract import CAMERAS
from dexpie_ros.episodes import mcap_records as mcap
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.images import decode_jpeg, encode_jpeg
from dexpie_ros.web.library import Opened

COMPRESSED = "sensor_msgs/msg/CompressedImage"
WIDTH = 144
"""px of a small picture, twice what the table shows for the sake of dense screens"""
KEPT = 3000
_TRIED_CHUNKS = 8


def picture(opened: Opened, camera: str, number: int) -> bytes:
    """JPEG ``number`` of ``camera``, in the order of the recording; EpisodeError if there is none."""
    images = opened.cameras.get(camera)
    if images is None or not 0 <= number < len(images.encoded):
        raise EpisodeError(f"{opened.bag.path}: no picture {number} of camera {camera}")
    data = bytes(images.encoded[number])
    if images.raw_shape is not None:
        return encode_jpeg(np.frombuffer(data, np.uint8).reshape(*images.raw_shape, 3))
    return data


def last_picture(directory: str | Path) -> bytes:
    """The last picture of the first camera that has one: where the episode led to.

    EpisodeError without any in the last chunks of the bag, or without an index.
    """
    file = find_bag(directory)
    bag = BagReader(file)
    topics = [f"/camera/{name}/color/image_raw/compressed" for name in CAMERAS]
    wanted = [topic for topic in topics if topic in bag.topics]
    if bag.index is None or not wanted:
        raise EpisodeError(f"{file}: no recorded JPEG pictures, or no index to find them by")
    ids = {c.id for c in bag.index.channels.values() if c.topic == wanted[0]}
    with open(file, "rb") as stream:
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    for offset in list(reversed(bag.chunk_offsets))[:_TRIED_CHUNKS]:
        try:
            cdr = _last_of(data, offset, ids)
            if cdr is not None:
                message = messages.bag_typestore().deserialize_cdr(bytes(cdr), COMPRESSED)
                return bytes(message.data)
        except (mcap.DamagedError, SerdeError) as error:
            raise EpisodeError(f"{file}: {error}; `dexpie episodes repair`") from None
    raise EpisodeError(f"{file}: no picture among the last {_TRIED_CHUNKS} chunks")


def small(jpeg: bytes, width: int = WIDTH) -> bytes:
    """A JPEG no wider than ``width``; EpisodeError if it cannot be decoded."""
    try:
        image = decode_jpeg(jpeg)
    except ValueError as error:
        raise EpisodeError(str(error)) from None
    if image.shape[1] > width:
        size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return encode_jpeg(image, 80)


def _last_of(data: memoryview, offset: int, channels: set[int]) -> memoryview | None:
    """The last message of ``channels`` in the chunk at ``offset``."""
    if offset + mcap.RECORD.size > len(data):
        raise mcap.DamagedError(f"no chunk at byte {offset}")
    code, length = mcap.RECORD.unpack_from(data, offset)
    end = offset + mcap.RECORD.size + length
    if code != mcap.CHUNK or end > len(data):
        raise mcap.DamagedError(f"no chunk at byte {offset}")
    records = mcap.chunk(data[offset + mcap.RECORD.size : end])
    found: memoryview | None = None
    position = 0
    while position + mcap.RECORD.size <= len(records):
        code, length = mcap.RECORD.unpack_from(records, position)
        start, position = position + mcap.RECORD.size, position + mcap.RECORD.size + length
        if position > len(records):
            raise mcap.DamagedError("cut off inside a record")
        if code == mcap.MESSAGE and length >= mcap.MESSAGE_HEADER.size:
            if mcap.MESSAGE_HEADER.unpack_from(records, start)[0] in channels:
                found = records[start + mcap.MESSAGE_HEADER.size : position]
    return found


class SmallPictures:
    """Made once each; the newest :data:`KEPT` stay in memory (4 kB each)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def get(self, directory: Path) -> bytes:
        """EpisodeError where there is none."""
        try:
            key = (str(directory), find_bag(directory).stat().st_mtime_ns)
        except OSError as error:
            raise EpisodeError(f"{directory}: cannot be read: {error.strerror}") from None
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        made = small(last_picture(directory))
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made
