"""How fast episodes are recorded, listed and turned into training data: `dexpie bench episodes`.

The reference for the ingest is the loop that one would write first: every message through
``rosbags``, every picture through OpenCV, alignment at the end. Both run here, one after the other,
on the same bags, so that their ratio holds on any machine.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dexpie_ros import messages
from dexpie_ros.contract import recorded_topics
from dexpie_ros.control.types import (
    ARM_JOINTS,
    HAND_JOINTS,
    STEP_NS,
    Command,
    ControlStep,
    Mode,
    Source,
)
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.bag_writer import BagWriter, qos_profile
from dexpie_ros.episodes.cache import Cache, CacheConfig
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import EpisodeInfo
from dexpie_ros.episodes.images import IMAGE_SIZE, encode_jpeg
from dexpie_ros.episodes.recording import Recording, RecordingConfig
from dexpie_ros.episodes.writer import EpisodeWriter, WriterConfig
from dexpie_ros.geometry import Pose

CAMERA_HZ, STATE_HZ = 60, 125
_T0 = 1_790_000_000_000_000_000
_CAMERAS = ("front", "wrist")


def bench_episodes(quick: bool = False) -> dict[str, float]:
    """Figures by name; about half a minute (quick) or five minutes.

    ``ingest_*``: JPEG bags (2 x 640x480 at 60 Hz, state at 125 Hz) to the cache, against the loop
    over rosbags and OpenCV. ``ingest_speedup_frugal``: against that loop decoding only the pictures
    that are needed; ``ingest_speedup_per_core``: in processor time, so without the second core, and
    also right on a busy machine. ``recorder_*``: two raw 640x480 streams at 60 Hz and state at 125 Hz, paced in
    real time, through queue and writer thread to the disk; ``recorder_cores`` includes the feeder.
    ``list_1000_s``: a collection of 1,000. ``open_index_ms``: the index of the largest of these bags;
    ``open_long_index_ms``: of one of ``long_index_chunks`` chunks, as hours of recording make them.
    """
    with tempfile.TemporaryDirectory(dir=os.environ.get("DEXPIE_BENCH_DIR")) as folder:
        root = Path(folder)
        figures = _ingest(root, episodes=2 if quick else 4, seconds=5.0 if quick else 30.0)
        figures |= _recorder(root, seconds=5.0 if quick else 120.0)
        figures |= _listing(root, 1000) | _long_index(root, 4_000 if quick else 20_000)
    return {name: round(value, 4) for name, value in figures.items()}


# -- ingest ----------------------------------------------------------------------------------------
def _ingest(root: Path, episodes: int, seconds: float) -> dict[str, float]:
    paths = [camera_bag(root / f"bags/e{i}", seconds, i) for i in range(episodes)]
    gigabytes = sum(find_bag(path).stat().st_size for path in paths) / 1e9
    pictures = episodes * seconds * CAMERA_HZ * len(_CAMERAS)
    work = _cpu()
    straightforward = sum(_timed(partial(reference_ingest, p, root / "loop")) for p in paths)
    work, loop_work = _cpu(), _cpu() - work
    took = _timed(lambda: Cache(root / "cache", CacheConfig()).build(paths))
    cache_work = _cpu() - work
    frugal = sum(_timed(partial(reference_ingest, p, root / "loop", True)) for p in paths)
    opened = min(_timed(lambda: BagReader(find_bag(paths[0])).topics) for _ in range(5))
    return {
        "ingest_speedup": straightforward / took,
        "ingest_speedup_frugal": frugal / took,
        "ingest_speedup_per_core": loop_work / cache_work,
        "ingest_s_per_gb": took / gigabytes,
        "ingest_gb_per_s": gigabytes / took,
        "ingest_frames_per_s": pictures / took,
        "ingest_x_realtime": episodes * seconds / took,
        "ingest_reference_s_per_gb": straightforward / gigabytes,
        "ingest_gb": gigabytes,
        "open_index_ms": 1e3 * opened,
    }


def reference_ingest(directory: Path, out: Path, frugal: bool = False) -> None:
    """The straightforward loop: rosbags deserializes, OpenCV decodes and resizes, numpy saves.

    ``frugal``: pictures are kept encoded and only those in force at a control step are decoded.
    """
    from rosbags.highlevel import AnyReader

    stamps: dict[str, list[int]] = {}
    values: dict[str, list[np.ndarray]] = {}

    def decode(jpeg: np.ndarray) -> np.ndarray:
        bgr = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert bgr is not None
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        return np.asarray(cv2.resize(rgb, (IMAGE_SIZE, IMAGE_SIZE)))

    with AnyReader([directory], default_typestore=messages.bag_typestore()) as bag:
        for connection, _, raw in bag.messages():
            message: Any = bag.deserialize(raw, connection.msgtype)
            kind = connection.msgtype.rpartition("/")[2]
            if kind == "CompressedImage":
                value = message.data if frugal else decode(message.data)
            elif kind == "JointState":
                value = message.position
            elif kind == "PoseStamped":
                value = messages.read_pose(message.pose).matrix()
            elif kind == "ControlStep":
                value = messages.read_control_step(message).command.tcp.matrix()
            else:
                continue
            stamps.setdefault(connection.topic, []).append(messages.stamp_ns(message.header.stamp))
            values.setdefault(connection.topic, []).append(value)
    times = np.array(stamps["/control/step"])
    out.mkdir(parents=True, exist_ok=True)
    for topic, rows in values.items():
        index = np.searchsorted(np.array(stamps[topic]), times, side="right") - 1
        chosen = [rows[i] for i in np.maximum(index, 0)]
        if frugal and topic.startswith("/camera"):
            chosen = [decode(row) for row in chosen]
        np.save(out / f"{directory.name}{topic.replace('/', '_')}.npy", np.stack(chosen))


def camera_bag(directory: Path, seconds: float, seed: int) -> Path:
    """A bag as the robot gives it: JPEG of textured pictures, all streams on their own clocks."""
    pictures = _pictures(seed, 20)
    streams = [_state(seconds), _steps(seconds)]
    for number, camera in enumerate(_CAMERAS):
        streams.append(_camera(camera, seconds, pictures, offset_ns=3_000_000 + number * 1_700_000))
    rows = sorted((row for stream in streams for row in stream), key=lambda row: row[0])
    info = EpisodeInfo(directory.name, task="bench")
    with EpisodeWriter(directory, info, recorded_topics(), WriterConfig(durable=False)) as writer:
        for stamp, topic, cdr in rows:
            writer.write(topic, cdr, stamp, stamp)
        writer.finish("success")
    return directory


def _pictures(seed: int, count: int) -> list[bytes]:
    """Texture at several scales: about as hard to compress as a table top with objects."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        picture = np.zeros((480, 640, 3), np.float32)
        for scale, weight in ((8, 60), (32, 40), (120, 24), (480, 6)):
            noise = rng.normal(0, weight, (scale * 3 // 4, scale, 3)).astype(np.float32)
            picture += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
        found.append(encode_jpeg(np.clip(picture + 128, 0, 255).astype(np.uint8), 90))
    return found


def _camera(
    camera: str, seconds: float, pictures: Sequence[bytes], offset_ns: int
) -> Iterator[tuple[int, str, bytes]]:
    bag, topic = messages.bag(), f"/camera/{camera}/color/image_raw/compressed"
    for k in range(int(seconds * CAMERA_HZ)):
        stamp = _T0 + offset_ns + round(k * 1e9 / CAMERA_HZ)
        message = bag.compressed_image(stamp, camera, pictures[k % len(pictures)])
        yield stamp, topic, messages.serialize(message)


def _state(seconds: float) -> Iterator[tuple[int, str, bytes]]:
    bag = messages.bag()
    for k in range(int(seconds * STATE_HZ)):
        stamp = _T0 + round(k * 1e9 / STATE_HZ)
        pose = bag.pose_stamped(stamp, "base", _pose(k / STATE_HZ))
        joints = bag.joint_state(stamp, ARM_JOINTS, np.full(6, 0.1 * k), np.zeros(6))
        yield stamp, "/arm/tcp_pose", messages.serialize(pose)
        yield stamp, "/arm/joint_states", messages.serialize(joints)


def _steps(seconds: float) -> Iterator[tuple[int, str, bytes]]:
    bag = messages.bag()
    for k in range(int(seconds * 25)):
        stamp = _T0 + k * STEP_NS
        command = Command(_pose(k / 25), np.full(6, 0.5))
        step = ControlStep(
            stamp, k, command, Source.POLICY, Mode.POLICY, command, None, (command,) * 4, 20
        )
        hand = bag.joint_state(stamp, HAND_JOINTS, np.full(6, 0.5), None, np.zeros(6))
        yield stamp, "/hand/joint_states", messages.serialize(hand)
        yield stamp, "/control/step", messages.serialize(bag.control_step(step))


def _pose(t: float) -> Pose:
    half = 0.1 * t % 1.0
    return Pose(np.array([0.4, 0.01 * t, 0.3]), np.array([0.0, np.sin(half), 0.0, np.cos(half)]))


# -- recorder --------------------------------------------------------------------------------------
def _recorder(root: Path, seconds: float, episode_s: float = 10.0) -> dict[str, float]:
    """Feeds a recorder in real time; episodes are deleted as they end, so that the disk holds."""
    bag = messages.bag()
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    raw = messages.serialize(bag.image(_T0, "front", image))
    state = next(_state(1.0))[2]
    settings = RecordingConfig(preroll_s=0.2, minimum_free_gb=0.0)
    recording = Recording(recorded_topics("raw"), settings)
    sent = kept = dropped = 0
    longest = 0.0
    cpu, start = time.process_time(), time.monotonic()
    for number in range(max(1, round(seconds / episode_s))):
        length = min(seconds, episode_s)
        directory = root / f"recorder{number}"
        recording.start(directory, EpisodeInfo(f"r{number}"))
        sent += _feed(recording, raw, state, length)
        began = time.monotonic()
        recording.end("success")
        longest = max(longest, time.monotonic() - began)
        dropped += recording.dropped
        kept += BagReader(find_bag(directory)).index.statistics.messages  # type: ignore[union-attr]
        shutil.rmtree(directory)
    wall = time.monotonic() - start
    return {
        "recorder_dropped": float(dropped + max(0, sent - kept)),
        "recorder_cores": (time.process_time() - cpu) / wall,
        "recorder_mb_per_s": sum(
            rate * len(data) for rate, data in ((2 * CAMERA_HZ, raw), (STATE_HZ, state))
        ) / 1e6,
        "recorder_s": wall,
        "recorder_end_s": longest,
    }  # fmt: skip


def _feed(recording: Recording, raw: bytes, state: bytes, seconds: float) -> int:
    """Sends what two cameras and an arm would, each at its time; gives how many messages."""
    done = threading.Event()
    plan = sorted(
        [(k / CAMERA_HZ, f"/camera/{c}/color/image_raw", raw)
         for c in _CAMERAS for k in range(int(seconds * CAMERA_HZ))]
        + [(k / STATE_HZ, "/arm/tcp_pose", state) for k in range(int(seconds * STATE_HZ))],
        key=lambda item: item[0],
    )  # fmt: skip
    start = time.monotonic()
    for due, topic, cdr in plan:
        ahead = due - (time.monotonic() - start)
        if ahead > 0:
            done.wait(ahead)
        now = time.time_ns()
        recording.receive(topic, cdr, now, now)
    return len(plan)


# -- listing ---------------------------------------------------------------------------------------
def _listing(root: Path, count: int) -> dict[str, float]:
    """A collection of ``count`` episodes; the bags are one, linked, for only descriptions are read."""
    first = root / "many/e0000"
    info = EpisodeInfo("e0000", task="bench", created="2026-01-01T00:00:00.000+00:00")
    with EpisodeWriter(first, info, settings=WriterConfig(durable=False)) as writer:
        for stamp, topic, cdr in _steps(1.0):
            writer.write(topic, cdr, stamp, stamp)
        writer.finish("success")
    from dexpie_ros.episodes.episode_file import read_episode_file, write_episode_file

    content = read_episode_file(first)
    assert content is not None
    for k in range(1, count):
        path = root / f"many/e{k:04d}"
        path.mkdir()
        os.link(find_bag(first), path / f"{path.name}_0.mcap")
        named = dataclasses.replace(content.info, episode_id=path.name)
        write_episode_file(path, dataclasses.replace(content, info=named))
    took = min(
        _timed(lambda: Collection(root / "many").filter(outcome="success")) for _ in range(3)
    )
    return {f"list_{count}_s": took}


def _long_index(root: Path, chunks: int) -> dict[str, float]:
    """A bag whose messages are as long as a chunk."""
    with BagWriter(root / "long", chunk_bytes=600, durable=False) as writer:
        store, kind = messages.bag_typestore(), "std_msgs/msg/String"
        definition, _ = store.generate_msgdef(kind, ros_version=2)
        writer.add_topic("/noted", kind, definition, store.hash_rihs01(kind), qos_profile())
        cdr = messages.serialize(messages.bag().text("x" * 600))
        for k in range(chunks):
            writer.write("/noted", cdr, _T0 + k, _T0 + k)
        writer.finish({})
    file = find_bag(root / "long")
    opened = min(_timed(lambda: BagReader(file).topics) for _ in range(5))
    found = len(BagReader(file).chunk_offsets)
    return {"open_long_index_ms": 1e3 * opened, "long_index_chunks": float(found)}


def _cpu() -> float:
    """Processor seconds of this process and of the workers that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
