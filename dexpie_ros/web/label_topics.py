"""Labels as topics, for programs that know bags only: a small MCAP file to be opened beside the bag.

The bag itself never changes, and labels come and go; so they are not put into it.
"""

from __future__ import annotations

import io

from mcap.writer import CompressionType, Writer

from dexpie_ros import __version__
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.labels import Labels
from dexpie_ros.messages import bag_typestore

FLOAT64 = "std_msgs/msg/Float64"
TOPICS = {
    "value": "/critic/value",
    "value_low": "/critic/value_low",
    "value_high": "/critic/value_high",
    "advantage": "/critic/advantage",
    "optimality": "/critic/optimality",
}


def labels_mcap(episode: Episode, labels: Labels) -> bytes:
    """One message per control step and row, stamped with the step; the meta as metadata.

    EpisodeError if the labels are of another length.
    """
    if len(labels) != len(episode):
        raise EpisodeError(
            f"{episode.path}: {len(labels)} labels for {len(episode)} steps; label it again"
        )
    types = bag_typestore()
    number, (definition, _) = types.types[FLOAT64], types.generate_msgdef(FLOAT64, ros_version=2)
    out = io.BytesIO()
    writer = Writer(out, compression=CompressionType.NONE)
    writer.start("ros2", f"dexpie_ros {__version__}")
    schema = writer.register_schema(FLOAT64, "ros2msg", definition.encode())
    rows = {name: getattr(labels, name) for name in labels.rows}
    channels = {name: writer.register_channel(TOPICS[name], "cdr", schema) for name in rows}
    for t, stamp in enumerate(episode.time_ns.tolist()):
        for name, row in rows.items():
            cdr = types.serialize_cdr(number(float(row[t])), FLOAT64)
            writer.add_message(channels[name], stamp, bytes(cdr), stamp, t)
    about = {key: value for key, value in labels.meta.items() if isinstance(value, str)}
    writer.add_metadata("dexpie_labels", {"episode": episode.id, **about})
    writer.finish()
    return out.getvalue()
