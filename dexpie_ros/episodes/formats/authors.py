"""The data of the paper's authors -> recorded episodes.

HDF5, one file per episode:

    color, wrist_color          (T, h, w, 3) uint8        -> /camera/{front,wrist}/...
    env_qpos_proprioception     (T, 12) joints rad, TCP position m and rotation vector
                                                          -> /arm/joint_states, /arm/tcp_pose
    action                      (T, 15) TCP position, rot6d by ROWS, hand / 1000 (all absolute)
                                                          -> /control/step
    intervention                (T,) optional             -> source human or policy
    timestamps/t_anchor_ns      (T,) optional             -> the stamps of everything
    attribute success                                     -> outcome

Zarr, all episodes in one: ``data/{img,wrist_img,state,action,intervention}``, ``meta/episode_ends``,
``meta/success``; or the memory-mapped variant with ``data.zarr`` beside ``img.npy``.

What they did not record: the measured hand (the commanded openings stand in, and the note says so),
forces, proposals of the policy, and in Zarr the times. An episode without ``intervention`` is only
read when the caller says whose commands these are; taking silence for "all human" is the trap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import geometry
from dexpie_ros.control.types import STEP_NS, Command, ControlStep, Mode, Source
from dexpie_ros.episodes.align import AlignConfig, hold, interpolate_poses
from dexpie_ros.episodes.episode import EpisodeError, EpisodeInfo, Kind
from dexpie_ros.episodes.formats.as_bag import (
    Message,
    control_step_message,
    picture_message,
    record,
    state_messages,
)
from dexpie_ros.episodes.formats.driver import Driver, require_driver
from dexpie_ros.episodes.formats.optional import require
from dexpie_ros.episodes.images import encode_jpeg
from dexpie_ros.geometry import Array, Pose

START_NS = 1_000_000_000_000_000_000
"""Begin of episodes that carry no times: plainly not a date of a recording."""


@dataclass(frozen=True, eq=False)
class Source15:
    """One episode as the authors store it."""

    name: str
    joints: Array
    tcp: Array
    """(T, 4, 4) measured"""
    command: Array
    """(T, 4, 4)"""
    hand: Array
    """(T, 6) commanded openings"""
    human: NDArray[np.bool_]
    stamps: NDArray[np.int64]
    success: bool | None
    images: Mapping[str, Any]
    """(T, h, w, 3) by camera; read one by one"""
    timed: bool


def import_authors(
    path: str | Path,
    out: str | Path,
    *,
    kind: Kind = "demonstration",
    task: str = "",
    rate_hz: float = 30.0,
    driver: Driver = "",
    bgr: bool = False,
) -> list[Path]:
    """Record the episodes of an HDF5 file, of a folder of them or of a Zarr store below ``out``.

    ``rate_hz``: of data without times. ``driver``: who drove where ``intervention`` is missing.
    ``bgr``: the pictures' channel order. EpisodeError names file, key and remedy.
    """
    paths = []
    for item in _open(Path(path), rate_hz, driver):
        info = EpisodeInfo(
            episode_id=item.name,
            kind=kind,
            task=task,
            outcome={True: "success", False: "failure", None: ""}[item.success],  # type: ignore[arg-type]
            note={
                "imported_from": str(path),
                "hand": "commanded, not measured",
                "times": "recorded" if item.timed else f"made up from {rate_hz:g} Hz",
            },
        )
        rows = list(_messages(item, bgr))
        paths.append(record(Path(out) / item.name, info, rows, images=bool(item.images)))
    return paths


def _messages(item: Source15, bgr: bool) -> Iterator[Message]:
    """State and pictures with their own stamps, control steps at 25 Hz from the first one on."""
    for k, stamp in enumerate(item.stamps.tolist()):
        yield from state_messages(stamp, item.tcp[k], item.joints[k], item.hand[k])
        for camera, images in item.images.items():
            rgb = np.asarray(images[k], np.uint8)
            yield picture_message(stamp, camera, encode_jpeg(rgb[..., ::-1] if bgr else rgb, 95))
    steps = (int(item.stamps[-1] - item.stamps[0]) + STEP_NS // 100) // STEP_NS + 1
    times = item.stamps[0] + np.arange(steps) * STEP_NS
    settings = AlignConfig()
    quaternions = geometry.matrix_to_quaternion(item.command[:, :3, :3])
    tcp, _, _ = interpolate_poses(item.stamps, item.command[:, :3, 3], quaternions, times, settings)
    held = hold(item.stamps, times, settings).index
    for tick, (stamp, row) in enumerate(zip(times.tolist(), held.tolist())):
        command = Command(Pose.from_matrix(tcp[tick]), item.hand[row])
        human = bool(item.human[row])
        yield control_step_message(
            ControlStep(
                time_ns=stamp,
                tick=tick,
                command=command,
                source=Source.HUMAN if human else Source.POLICY,
                mode=Mode.HUMAN if human else Mode.POLICY,
                human=command if human else None,
            )
        )


def _open(path: Path, rate_hz: float, driver: Driver) -> Iterator[Source15]:
    if path.is_file():
        yield _hdf5(path, rate_hz, driver)
    elif path.is_dir() and list(path.glob("*.h5")):
        for file in sorted(path.glob("*.h5")):
            yield _hdf5(file, rate_hz, driver)
    elif path.is_dir():
        yield from _zarr(path, rate_hz, driver)
    else:
        raise EpisodeError(f"{path}: no such file; expected *.h5, a folder of them or a Zarr store")


def _hdf5(path: Path, rate_hz: float, driver: Driver) -> Source15:
    h5py = require("h5py", "reading the authors' HDF5")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise EpisodeError(f"{path}: cannot be read as HDF5 ({error})") from None
    state, action = _table(path, file, "env_qpos_proprioception"), _table(path, file, "action")
    stamps = file.get("timestamps/t_anchor_ns")
    success = file.attrs.get("success")
    images = {n: file[k] for n, k in (("front", "color"), ("wrist", "wrist_color")) if k in file}
    return _source(
        path.stem, str(path), state, action, file.get("intervention"), stamps, images, rate_hz,
        driver, None if success is None else bool(success),
    )  # fmt: skip


def _zarr(path: Path, rate_hz: float, driver: Driver) -> Iterator[Source15]:
    zarr = require("zarr", "reading the authors' Zarr")
    inner = path / "data.zarr"
    try:
        store = zarr.open(str(inner if inner.is_dir() else path), mode="r")
        data, meta = store["data"], store["meta"]
        ends = np.asarray(meta["episode_ends"][:], np.int64)
        success = np.asarray(meta["success"][:], bool) if "success" in meta else None
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise EpisodeError(f"{path}: not the authors' Zarr layout ({error!r:.200})") from None
    where = str(path)
    state, action = _table(path, data, "state"), _table(path, data, "action")
    human = data["intervention"][:] if "intervention" in data else None
    images: dict[str, Any] = {}
    for name, key in (("front", "img"), ("wrist", "wrist_img")):
        mapped = path / f"{key}.npy"
        if mapped.is_file():
            images[name] = np.load(mapped, mmap_mode="r", allow_pickle=False)
        elif key in data:
            images[name] = data[key]
    if len(ends) == 0 or ends[0] <= 0 or np.any(np.diff(ends) <= 0) or ends[-1] != len(action):
        raise EpisodeError(f"{where}: meta/episode_ends does not divide {len(action)} steps")
    for number, (a, b) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist())):
        parts = {name: _Slice(values, a, b) for name, values in images.items()}
        yield _source(
            f"{path.stem}-{number:04d}", f"{where}: episode {number}", state[a:b], action[a:b],
            None if human is None else human[a:b], None, parts, rate_hz, driver,
            None if success is None else bool(success[number]),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Slice:
    """Rows a..b of a large array, read when looked at."""

    values: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Any:
        return self.values[self.start + index]


def _source(
    name: str,
    where: str,
    state: Array,
    action: Array,
    intervention: Any,
    stamps: Any,
    images: Mapping[str, Any],
    rate_hz: float,
    driver: Driver,
    success: bool | None,
) -> Source15:
    steps = len(action)
    widths = {"state": (state, 12), "action": (action, 15)}
    for key, (values, width) in widths.items():
        if values.shape != (steps, width) or not steps or not np.isfinite(values).all():
            raise EpisodeError(
                f"{where}: {key} has shape {values.shape} or holds values that are no numbers; "
                f"expected finite ({steps}, {width})"
            )
    for camera, values in images.items():
        if len(values) != steps:
            raise EpisodeError(f"{where}: {len(values)} pictures of {camera} for {steps} steps")
    if intervention is not None:
        human = np.any(np.asarray(intervention[:], bool).reshape(steps, -1), axis=1)
    else:
        human = require_driver(driver, steps, where)
    if stamps is not None and np.all(np.diff(np.asarray(stamps[:], np.int64)) > 0):
        times, timed = np.asarray(stamps[:], np.int64), True
    else:
        times = START_NS + np.rint(np.arange(steps) * 1e9 / rate_hz).astype(np.int64)
        timed = False
    rotation = geometry.rotation_exp(state[:, 9:12])
    # Their rot6d is by rows: read as columns it is the transpose.
    command = np.swapaxes(geometry.rot6d_to_matrix(action[:, 3:9]), -1, -2)
    return Source15(
        name=name,
        joints=state[:, :6],
        tcp=geometry.make_pose(rotation, state[:, 6:9]),
        command=geometry.make_pose(command, action[:, :3]),
        hand=np.clip(action[:, 9:], 0.0, 1.0),
        human=np.asarray(human, bool),
        stamps=times,
        success=success,
        images=images,
        timed=timed,
    )


def _table(path: Path, group: Any, key: str) -> Array:
    try:
        return np.asarray(group[key][:], np.float64)
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise EpisodeError(f"{path}: {key} cannot be read ({error!r:.200})") from None
