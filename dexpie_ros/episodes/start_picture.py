"""The first picture of an episode: what a person lays over the live one to restore its start."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dexpie_ros.config import write_atomic
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.decoding import decode_own
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.images import encode_jpeg
from dexpie_ros.episodes.streams import COMPRESSED, IMAGE

FOLDER = ".starts"


def start_picture(directory: str | Path, camera: str = "front") -> Path | None:
    """JPEG of the first image of the episode in ``directory``; None where it has none.

    Written beside the episodes, once. Reads the bag no further than to that image, for the session
    asks while the robot waits. Raises EpisodeError where the bag cannot be read.
    """
    episode = Path(directory)
    picture = episode.parent / FOLDER / f"{episode.name}.jpg"
    if not picture.is_file():
        jpeg = _first_jpeg(BagReader(find_bag(episode)), f"/camera/{camera}/color/image_raw")
        if jpeg is None:
            return None
        write_atomic(picture, jpeg)
    return picture


def _first_jpeg(bag: BagReader, base: str) -> bytes | None:
    for topic, expected in ((f"{base}/compressed", COMPRESSED), (base, IMAGE)):
        found = bag.first(topic)
        if found is None:
            continue
        if found[0] != expected:
            raise EpisodeError(f"{bag.path}: {topic} holds {found[0]}, expected {expected}")
        message = decode_own(found[1], expected, f"{bag.path}: {topic}")
        data = np.asarray(message.data, np.uint8)
        if expected == COMPRESSED:
            return data.tobytes()
        shape = (int(message.height), int(message.width), 3)
        if message.encoding != "rgb8" or data.size != np.prod(shape):
            raise EpisodeError(
                f"{bag.path}: {topic}: {shape[0]}x{shape[1]} {message.encoding} of {data.size} "
                "bytes; expected packed rgb8"
            )
        return encode_jpeg(data.reshape(shape))
    return None
