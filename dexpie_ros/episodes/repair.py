"""Makes a recording that was cut off whole again, and says so in its description.

Everything in whole chunks is copied, message by message with its times, into a new file that then
takes the old one's name; until that moment the old file is untouched, so a repair that is itself
killed costs nothing. A finished recording is never rewritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import yaml

from dexpie_ros.contract import BY_NAME
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.bag_writer import BagWriter, qos_profile, write_metadata
from dexpie_ros.episodes.decoding import has_header, header_stamp_ns, is_human_step
from dexpie_ros.episodes.episode import EpisodeError, EpisodeInfo
from dexpie_ros.episodes.episode_file import (
    RECORD_NAME,
    EpisodeFile,
    from_record,
    read_episode_file,
    to_record,
    write_episode_file,
)
from dexpie_ros.episodes.statistics import StreamStatistics

CONTROL_STEP = "/control/step"


@dataclass(frozen=True)
class Repair:
    """What a repair did."""

    path: Path
    changed: bool
    message: str
    lost_bytes: int = 0
    """Bytes at the end of the file (or in damaged chunks) that held no whole chunk."""


def repair(directory: str | Path) -> Repair:
    """Repair one episode; does nothing to a whole one.

    EpisodeError if it is still being recorded, if a *finished* bag is damaged (it is left as it is;
    ``read_episode`` delivers what can be read), if nothing of it can be read, or if the disk does not
    take the whole copy (what was recorded is left as it was).
    """
    folder = Path(directory)
    try:
        return _repair(folder, find_bag(folder))
    except OSError as error:
        raise EpisodeError(
            f"{folder}: not repaired, {error.strerror or error}; what was recorded is as it was. Make "
            "room or see to the disk, then repair again"
        ) from None


def looks_whole(directory: str | Path) -> bool:
    """Whether a finished bag has its metadata and a sound index; its messages are not looked at."""
    folder = Path(directory)
    try:
        return (folder / "metadata.yaml").is_file() and BagReader(find_bag(folder)).indexed
    except EpisodeError:
        return False


def _repair(folder: Path, file: Path) -> Repair:
    with _exclusive(file):
        content = _description(folder)
        bag = BagReader(file)
        if content is not None and content.status != "recording":
            return _finished(folder, bag, content.status)
        found = _from_bag(bag)
        if bag.indexed and found is not None and found.status != "recording":
            # Killed between the end of the bag and its description: the bag itself is whole.
            write_episode_file(folder, found)
            _finished(folder, bag, found.status)
            return Repair(folder, True, f"whole, now marked as {found.status}")
        content = content or found
        if content is None:
            raise EpisodeError(
                f"{folder}: neither episode.json nor a description in the bag; a bag of another "
                "program is made whole by `ros2 bag reindex -s mcap`"
            )
        return _make_whole(folder, bag, content)


def _finished(folder: Path, bag: BagReader, status: str) -> Repair:
    if not bag.indexed:
        raise EpisodeError(
            f"{bag.path}: {status}, but damaged since ({bag.size} bytes, no sound index); restore it "
            "from a backup. What can be read of it is read as a partial episode"
        )
    renewed = not (folder / "metadata.yaml").is_file() and _renew_metadata(folder, bag)
    bag.messages  # noqa: B018 - reading them checks every chunk
    if bag.problems:
        raise EpisodeError(
            f"{bag.problems[0]}; {status}, but damaged since: restore it from a backup. What can be "
            "read of it is read as a partial episode"
        )
    return Repair(folder, renewed, f"whole ({status})" + ", metadata.yaml renewed" * renewed)


def _renew_metadata(folder: Path, bag: BagReader) -> bool:
    """From the copy in the bag; EpisodeError where it holds none."""
    for name, record in reversed(bag.metadata):
        if name == "rosbag2":
            write_metadata(folder, yaml.safe_load(record["serialized_metadata"]))
            return True
    raise EpisodeError(f"{folder}: no metadata.yaml; `ros2 bag reindex -s mcap {folder}` makes one")


def _make_whole(folder: Path, bag: BagReader, begun: EpisodeFile) -> Repair:
    streams, info = bag.messages, begun.info
    said = streams[CONTROL_STEP].payloads if CONTROL_STEP in streams else []
    by_stamp = {stamp: cdr for cdr in said if (stamp := header_stamp_ns(cdr)) >= begun.start_ns}
    steps = list(by_stamp.values())
    total = sum(len(stream) for stream in streams.values())
    lost = bag.size - bag.end_of_data
    what = (
        f"{total} messages in {bag.whole_chunks} whole chunks kept, {lost} bytes without a whole "
        "chunk dropped"
    )
    content = EpisodeFile(
        info=info,
        status="repaired",
        duration_ns=_duration(bag),
        steps=len(steps),
        human_steps=sum(map(is_human_step, steps)),
        messages=total,
        start_ns=begun.start_ns,
        statistics={"streams": _statistics(bag, info)},
        repair={
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "lost_bytes": lost,
            "problems": bag.problems,
        },
    )
    _rewrite(folder, bag, content)
    return Repair(folder, True, what, lost)


def _rewrite(folder: Path, bag: BagReader, content: EpisodeFile) -> None:
    for left_over in folder.glob("*.mcap.repair"):
        left_over.unlink()
    free = shutil.disk_usage(folder).free
    if free < bag.size:
        raise EpisodeError(
            f"{folder}: {free / 1e9:.2f} GB free, but the repaired copy needs {bag.size / 1e9:.2f} GB "
            "before it takes the old one's place; make room, then repair again"
        )
    writer = BagWriter(folder, bag_name=bag.path.name, temporary=True)
    try:
        with writer:
            _copy(writer, bag, content)
        os.replace(writer.file, bag.path)
    finally:
        # Where it failed: half a copy takes room, and is no use to anybody.
        writer.file.unlink(missing_ok=True)
    _sync(folder)
    write_episode_file(folder, content)


def _copy(writer: BagWriter, bag: BagReader, content: EpisodeFile) -> None:
    """Every message in the order in which it came, then the description."""
    order = sorted(
        (log, publish, sequence, topic, i)
        for topic, stream in bag.messages.items()
        for i, (log, publish, sequence) in enumerate(
            zip(stream.log_time_ns, stream.publish_time_ns, stream.sequence)
        )
    )
    for topic, channel in bag.channels.items():
        kind = bag.messages[topic].type
        writer.add_topic(
            topic,
            kind,
            bag.schemas[kind].data.decode(),
            channel.metadata.get("topic_type_hash", ""),
            channel.metadata.get("offered_qos_profiles", qos_profile()),
        )
    for log, publish, sequence, topic, i in order:
        writer.write(topic, bag.messages[topic].payloads[i], log, publish, sequence)
    writer.add_metadata(RECORD_NAME, to_record(content))
    writer.finish(
        {"episode_id": content.info.episode_id, "kind": content.info.kind, "outcome": ""},
    )


def _statistics(bag: BagReader, info: EpisodeInfo) -> dict[str, object]:
    result: dict[str, object] = {}
    for topic, stream in bag.messages.items():
        if not len(stream):
            continue
        row = BY_NAME.get(topic)
        rate = (row.simulated_rate_hz if info.simulated else row.rate_hz) if row else 0.0
        figures = StreamStatistics(period_ns=1e9 / rate if rate else 0.0)
        stamped = has_header(stream.type)
        for log, payload in zip(stream.log_time_ns, stream.payloads):
            stamp = header_stamp_ns(payload, log) if stamped else log
            figures.add(stamp, log, len(payload))
        result[topic] = figures.summary()
    return result


def _duration(bag: BagReader) -> int:
    times = [t for stream in bag.messages.values() for t in stream.log_time_ns]
    return max(times) - min(times) if times else 0


def _description(folder: Path) -> EpisodeFile | None:
    try:
        return read_episode_file(folder)
    except EpisodeError:
        # Broken: the bag holds a copy, and repair writes it anew.
        return None


def _from_bag(bag: BagReader) -> EpisodeFile | None:
    for name, record in reversed(bag.metadata):
        if name == RECORD_NAME:
            with contextlib.suppress(EpisodeError):
                return from_record(record, str(bag.path))
    return None


@contextlib.contextmanager
def _exclusive(file: Path) -> Iterator[None]:
    """The writer holds this lock while it lives, even if it hangs."""
    with open(file, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EpisodeError(
                f"{file}: is being recorded (or repaired) right now; end the episode first"
            ) from None
        yield


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
