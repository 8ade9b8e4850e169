"""LeRobotDataset v3 -> episodes. Data that this project exported come back bit-exact.

Data sets of others are read if they have the state and action columns of
:mod:`.lerobot_features` (by name); anything else is refused with a list of what is missing, for a
pose cannot be guessed from joint angles of an unknown arm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import geometry
from dexpie_ros.control.types import STEP_NS, Mode, Source
from dexpie_ros.episodes.episode import Episode, EpisodeError, EpisodeInfo, ImageSequence, Kind
from dexpie_ros.episodes.episode_file import read_info
from dexpie_ros.episodes.formats.as_bag import write_bag
from dexpie_ros.episodes.formats.driver import Driver, require_driver
from dexpie_ros.episodes.formats.lerobot_features import (
    ACTION_NAMES,
    FPS,
    STATE_NAMES,
    columns,
    unflat,
)
from dexpie_ros.episodes.formats.optional import require
from dexpie_ros.episodes.images import Image, decode_jpeg, decode_shrunk
from dexpie_ros.geometry import Array


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Encoded images as the data set holds them."""

    encoded: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Image:
        return decode_jpeg(self.encoded[index])

    def shrunk(self, index: int, size: int = 224) -> Image:
        return decode_shrunk(self.encoded[index], size)


def read_lerobot(root: str | Path, driver: Driver = "") -> list[Episode]:
    """All episodes of a data set, in memory. EpisodeError names what is missing or broken.

    ``driver``: who drove where a data set of others has no column `intervention`. A policy's
    episodes become deployments, a person's demonstrations.
    """
    folder = Path(root)
    pq = require("pyarrow.parquet", "reading a LeRobotDataset")
    arrow = require("pyarrow", "reading a LeRobotDataset")
    info = _info(folder)
    try:
        table = pq.read_table(
            sorted((folder / "meta/episodes").glob("*/*.parquet"))[0].parent.parent
        )
        rows = sorted(table.to_pylist(), key=lambda row: row["episode_index"])
        tasks = {
            int(row["task_index"]): str(row.get("__index_level_0__", row.get("task", "")))
            for row in pq.read_table(folder / "meta/tasks.parquet").to_pylist()
        }
        files: dict[Path, Any] = {}
        result = []
        for row in rows:
            path = folder / info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
            )
            if path not in files:
                files = {path: pq.read_table(path)}
            data = files[path]
            mask = np.asarray(data["episode_index"]) == row["episode_index"]
            part = data.filter(arrow.array(mask))
            result.append(_episode(folder, info, row, part, tasks, driver))
    except (OSError, IndexError, KeyError, TypeError, arrow.ArrowException) as error:
        raise EpisodeError(f"{folder}: not a whole LeRobotDataset v3: {error!r:.300}") from None
    if len(result) != info["total_episodes"]:
        raise EpisodeError(
            f"{folder}: {len(result)} episodes, meta/info.json says {info['total_episodes']}"
        )
    return result


def import_lerobot(root: str | Path, out: str | Path, driver: Driver = "") -> list[Path]:
    """Record every episode of a data set as a bag below ``out``."""
    return [write_bag(Path(out) / episode.id, episode) for episode in read_lerobot(root, driver)]


def _info(folder: Path) -> dict[str, Any]:
    path = folder / "meta/info.json"
    try:
        info = json.loads(path.read_bytes())
        version, fps, features = info["codebase_version"], info["fps"], info["features"]
    except FileNotFoundError:
        raise EpisodeError(f"{path}: no such file; not a LeRobotDataset") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EpisodeError(f"{path}: cannot be read ({error!r})") from None
    if not str(version).startswith("v3."):
        raise EpisodeError(
            f"{path}: codebase_version {version}, this reads v3.x; convert it with LeRobot's "
            "`convert_dataset_v21_to_v30` first"
        )
    wanted = {"observation.state": STATE_NAMES, "action": ACTION_NAMES}
    for name, names in wanted.items():
        found = features.get(name, {}).get("names") if isinstance(features, dict) else None
        if found != names:
            raise EpisodeError(
                f"{path}: {name} holds {found}, expected {names}; the data of another robot must be "
                "converted to TCP poses first"
            )
    if fps != FPS:
        raise EpisodeError(f"{path}: {fps} frames per second, control steps come at {FPS}")
    return dict(info)


def _episode(
    folder: Path,
    info: Mapping[str, Any],
    row: Mapping[str, Any],
    part: Any,
    tasks: dict[int, str],
    driver: Driver,
) -> Episode:
    number, steps = int(row["episode_index"]), int(row["length"])
    if part.num_rows != steps:
        raise EpisodeError(f"{folder}: episode {number} has {part.num_rows} of {steps} frames")
    more = json.loads(row.get("dexpie_more") or "{}")
    names = tuple(more.get("object_names", ()))
    cameras: dict[str, ImageSequence] = {}
    for key, feature in info["features"].items():
        if key.startswith("observation.images."):
            if feature["dtype"] != "image":
                raise EpisodeError(
                    f"{folder}: {key} is stored as {feature['dtype']}; images as `image` are read, "
                    "a video would have to be decoded by LeRobot"
                )
            data = tuple(item["bytes"] for item in part[key].to_pylist())
            cameras[key.removeprefix("observation.images.")] = StoredImages(data)
    if "dexpie.tcp" in part.column_names:
        exact = {k: _column(part, k, c.dtype, c.shape) for k, c in columns(len(names)).items()}
        arrays = _exact(exact, len(names), steps)
        content = read_info(json.loads(row["dexpie_info"]), f"{folder}: episode {number}")
    else:
        arrays = _foreign(part, steps, driver, f"{folder}: episode {number}")
        task = tasks.get(int(part["task_index"][0].as_py()), "")
        kind: Kind = "deployment" if np.any(arrays["source"] == Source.POLICY) else "demonstration"
        content = EpisodeInfo(f"{folder.name}-{number:06d}", kind=kind, task=task)
    corrected = more.get("corrected")
    return Episode(
        info=content,
        path=folder,
        **arrays,  # type: ignore[arg-type]
        object_names=names,
        cameras=cameras,
        events=tuple((int(t), str(text)) for t, text in more.get("events", ())),
        stages=tuple((int(t), str(text)) for t, text in more.get("stages", ())),
        intervention=None if corrected is None else np.array(corrected, bool),
        partial=bool(more.get("partial", False)),
        problems=tuple(more.get("problems", ())),
    )


def _column(part: Any, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray:
    column = part[name].combine_chunks()
    if shape != (1,):
        return np.asarray(column.flatten(), dtype).reshape(len(column), *shape)
    return np.asarray(column, dtype)


def _exact(values: dict[str, NDArray], objects: int, steps: int) -> dict[str, NDArray]:
    arrays = {
        key.removeprefix("dexpie."): unflat(value) if key.endswith("tcp") else value
        for key, value in values.items()
        if key.startswith("dexpie.") and key != "dexpie.objects"
    }
    rows = values["dexpie.objects"] if objects else np.zeros(0)
    arrays["objects"] = rows.reshape(steps, objects, 7)
    return arrays


def _foreign(part: Any, steps: int, driver: Driver, where: str) -> dict[str, NDArray]:
    state = _column(part, "observation.state", "float64", (len(STATE_NAMES),))
    action = _column(part, "action", "float64", (len(ACTION_NAMES),))
    if "intervention" in part.column_names:
        human = _column(part, "intervention", "bool", (1,))
    else:
        human = require_driver(driver, steps, where)
    nothing_tcp, nothing = np.full((steps, 4, 4), np.nan), np.full((steps, 6), np.nan)
    command_tcp, command_hand = _pose(action[:, :9]), action[:, 9:]
    return {
        "time_ns": np.arange(steps, dtype=np.int64) * STEP_NS + STEP_NS,
        "tick": np.arange(steps, dtype=np.int64),
        "tcp": _pose(state[:, :9]),
        "joints": state[:, 9:15],
        "hand": state[:, 15:],
        "hand_force": nothing,
        "command_tcp": command_tcp,
        "command_hand": command_hand,
        "source": np.where(human, Source.HUMAN, Source.POLICY).astype(np.uint8),
        "mode": np.where(human, Mode.HUMAN, Mode.POLICY).astype(np.uint8),
        "proposal_tcp": nothing_tcp,
        "proposal_hand": nothing,
        "human_tcp": np.where(human[:, None, None], command_tcp, np.nan),
        "human_hand": np.where(human[:, None], command_hand, np.nan),
        "contact": np.zeros(steps, bool),
        "flags": np.zeros(steps, bool),
        "stalls": np.zeros(steps, np.int64),
    }


def _pose(rows: Array) -> Array:
    return geometry.make_pose(geometry.rot6d_to_matrix(rows[:, 3:9]), rows[:, :3])
