"""The first picture of an episode: what a person lays over the live one to restore its start."""

from __future__ import annotations

from pathlib import Path

from dexpie_ros.config import write_atomic
from dexpie_ros.episodes.images import encode_jpeg
from dexpie_ros.episodes.reader import read_episode

FOLDER = ".starts"


def start_picture(directory: str | Path, camera: str = "front") -> Path | None:
    """JPEG of the first image of the episode in ``directory``; None where it has none.

    Written beside the episodes, once. Raises EpisodeError where the bag cannot be read.
    """
    episode = Path(directory)
    picture = episode.parent / FOLDER / f"{episode.name}.jpg"
    if not picture.is_file():
        images = read_episode(episode).cameras.get(camera)
        if images is None or not len(images):
            return None
        write_atomic(picture, encode_jpeg(images[0]))
    return picture
