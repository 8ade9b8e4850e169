"""Bags <-> episodes: writer, reader, alignment, annotations, dataset cache, import and export."""

from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.collection import Collection, Entry
from dexpie_ros.episodes.episode import Episode, EpisodeError, EpisodeInfo
from dexpie_ros.episodes.labels import Labels, read_labels, write_labels
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.episodes.writer import EpisodeWriter, WriterConfig

__all__ = [
    "AlignConfig",
    "Collection",
    "Entry",
    "Episode",
    "EpisodeError",
    "EpisodeInfo",
    "EpisodeWriter",
    "Labels",
    "WriterConfig",
    "read_episode",
    "read_labels",
    "write_labels",
]
