"""Episodes -> LeRobotDataset v3: parquet data, parquet episode table, JSON info and statistics.

Images are the recorded JPEG bytes themselves, inside the parquet file (LeRobot's ``image`` type):
nothing is encoded anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros import config
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.formats.lerobot_features import (
    CODEBASE_VERSION,
    FPS,
    Column,
    action,
    columns,
    describe,
    state,
    statistics,
)
from dexpie_ros.episodes.formats.optional import require
from dexpie_ros.episodes.images import RecordedImages, encode_jpeg

ROBOT_TYPE = "ur5_inspire_rh56"
CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
_INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def export_lerobot(
    episodes: Iterable[Episode], root: str | Path, *, data_file_mb: int = 100
) -> Path:
    """Write a LeRobotDataset v3 to ``root`` (new).

    Episodes need the same cameras with the same image size and the same objects. EpisodeError where
    they differ, or where an episode has steps without state or command, which LeRobot cannot say.
    """
    out = Path(root)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EpisodeError(f"{out}: not empty; choose another directory for the export")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, and only whole at its place: what failed is not in the way of the next try.
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        with contextlib.closing(_Export(temporary, data_file_mb)) as export:
            export.write(episodes)
        temporary.chmod(0o755)
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


class _Export:
    """One data set that is being written."""

    def __init__(self, root: Path, data_file_mb: int) -> None:
        self.root, self._data_file_bytes = root, data_file_mb << 20
        self._pa: Any = require("pyarrow", "the LeRobot export")
        self._pq: Any = require("pyarrow.parquet", "the LeRobot export")
        self._tasks: dict[str, int] = {}
        self._table_rows: list[dict[str, Any]] = []
        self._totals: dict[str, list[dict[str, list[Any]]]] = {}
        self._frames = 0
        self._writer: Any = None
        self._file_index, self._written = -1, 0
        self._first: Episode | None = None
        self._columns: dict[str, Column] = {}
        self._cameras: dict[str, tuple[int, ...]] = {}

    def close(self) -> None:
        """Also after a failure; the file that is open is of no use then."""
        if self._writer is not None:
            self._writer.close()

    def write(self, episodes: Iterable[Episode]) -> None:
        for episode in episodes:
            self._check(episode)
            self._add(episode)
        if self._first is None:
            raise EpisodeError("no episodes to export; `dexpie episodes list` shows what there is")
        self._writer.close()
        self._write_tasks()
        table = self._pa.Table.from_pylist(self._table_rows)
        path = self.root / EPISODES_PATH
        path.parent.mkdir(parents=True, exist_ok=True)
        self._pq.write_table(table, path, compression="snappy")
        config.write_json(self.root / "meta/stats.json", self._stats())
        # Last: a directory without it is not a data set yet.
        config.write_json(self.root / "meta/info.json", self._info())

    def _check(self, episode: Episode) -> None:
        lost = ~(np.isfinite(state(episode)).all(axis=1) & np.isfinite(action(episode)).all(axis=1))
        if lost.any():
            raise EpisodeError(
                f"{episode.path}: {lost.sum()} of {len(episode)} steps lack state or command; leave "
                "this episode out (`--whole` does)"
            )
        shapes = {name: images[0].shape for name, images in episode.cameras.items()}
        if self._first is None:
            self._first, self._cameras = episode, shapes
            self._columns = columns(len(episode.object_names))
        elif shapes != self._cameras or episode.object_names != self._first.object_names:
            raise EpisodeError(
                f"{episode.path}: cameras {shapes} and objects {episode.object_names} differ from "
                f"those of {self._first.path}: {self._cameras} and {self._first.object_names}; "
                "export them separately"
            )

    def _add(self, episode: Episode) -> None:
        steps, number = len(episode), len(self._table_rows)
        task = episode.info.task or "unnamed task"
        index = self._tasks.setdefault(task, len(self._tasks))
        frames = np.arange(steps)
        values: dict[str, Any] = {name: c.values(episode) for name, c in self._columns.items()}
        values |= {
            "timestamp": (frames / FPS).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(steps, number),
            "index": self._frames + frames,
            "task_index": np.full(steps, index),
        }
        stats = {name: statistics(value) for name, value in values.items()}
        encoded = {f"observation.images.{name}": _encoded(episode, name) for name in self._cameras}
        for name in self._cameras:
            stats[f"observation.images.{name}"] = _image_statistics(episode, name)
        size = sum(len(b) for rows in encoded.values() for b in rows) + steps * 1200
        self._open_file(size)
        self._writer.write_table(self._arrow(values, encoded))
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [task],
            "length": steps,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + steps,
            "data/chunk_index": self._file_index // CHUNKS_SIZE,
            "data/file_index": self._file_index % CHUNKS_SIZE,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "dexpie_info": json.dumps(config.to_dict(episode.info)),
            "dexpie_more": json.dumps(_more(episode)),
        }
        for name, figures in stats.items():
            self._totals.setdefault(name, []).append(figures)
            row |= {f"stats/{name}/{key}": value for key, value in figures.items()}
        self._table_rows.append(row)
        self._frames += steps

    def _open_file(self, size: int) -> None:
        if self._writer is not None and self._written + size <= self._data_file_bytes:
            self._written += size
            return
        if self._writer is not None:
            self._writer.close()
        self._file_index += 1
        self._written = size
        path = self.root / DATA_PATH.format(
            chunk_index=self._file_index // CHUNKS_SIZE, file_index=self._file_index % CHUNKS_SIZE
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = self._pq.ParquetWriter(path, self._schema(), compression="snappy")

    def _schema(self) -> Any:
        pa = self._pa
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        fields: list[tuple[str, Any]] = []
        features: dict[str, Any] = {}
        for name, column in self._columns.items():
            kind = getattr(pa, {"bool": "bool_"}.get(column.dtype, column.dtype))()
            value = {"dtype": column.dtype, "_type": "Value"}
            if column.shape == (1,):
                fields.append((name, kind))
                features[name] = value
            else:
                fields.append((name, pa.list_(kind, column.shape[0])))
                features[name] = {"feature": value, "length": column.shape[0], "_type": "List"}
        for name in self._cameras:
            fields.append((f"observation.images.{name}", image))
            features[f"observation.images.{name}"] = {"_type": "Image"}
        for name in _INDEX_COLUMNS:
            dtype = "float32" if name == "timestamp" else "int64"
            fields.append((name, getattr(pa, dtype)()))
            features[name] = {"dtype": dtype, "_type": "Value"}
        # So that `datasets` alone, without LeRobot, sees images and not structs.
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema(fields, metadata=metadata)

    def _arrow(self, values: dict[str, Any], encoded: dict[str, list[bytes]]) -> Any:
        pa, schema, arrays = self._pa, self._schema(), []
        for field in schema:
            if field.name in encoded:
                rows = [{"bytes": data, "path": None} for data in encoded[field.name]]
                arrays.append(pa.array(rows, field.type))
                continue
            value = np.ascontiguousarray(values[field.name])
            if pa.types.is_fixed_size_list(field.type):
                inner = pa.array(value.reshape(-1), field.type.value_type)
                arrays.append(pa.FixedSizeListArray.from_arrays(inner, type=field.type))
            else:
                arrays.append(pa.array(value, field.type))
        return pa.Table.from_arrays(arrays, schema=schema)

    def _write_tasks(self) -> None:
        """A pandas table: index = the task's text, one column ``task_index``."""
        pa = self._pa
        index = "__index_level_0__"
        column = {"field_name": index, "name": None, "pandas_type": "unicode",
                  "numpy_type": "object", "metadata": None}  # fmt: skip
        number = {"field_name": "task_index", "name": "task_index", "pandas_type": "int64",
                  "numpy_type": "int64", "metadata": None}  # fmt: skip
        pandas = {"index_columns": [index], "column_indexes": [], "columns": [number, column],
                  "pandas_version": "2.0.0"}  # fmt: skip
        table = pa.table(
            {
                "task_index": pa.array(list(self._tasks.values()), pa.int64()),
                index: pa.array(list(self._tasks), pa.string()),
            }
        ).replace_schema_metadata({"pandas": json.dumps(pandas)})
        path = self.root / "meta/tasks.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._pq.write_table(table, path)

    def _stats(self) -> dict[str, Any]:
        return {name: _aggregate(parts) for name, parts in self._totals.items()}

    def _info(self) -> dict[str, Any]:
        features = {name: describe(column) for name, column in self._columns.items()}
        for name, shape in self._cameras.items():
            features[f"observation.images.{name}"] = {
                "dtype": "image",
                "shape": list(shape),
                "names": ["height", "width", "channels"],
            }
        for name in _INDEX_COLUMNS:
            dtype = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": dtype, "shape": [1], "names": None}
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": ROBOT_TYPE,
            "total_episodes": len(self._table_rows),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": self._data_file_bytes >> 20,
            "video_files_size_in_mb": 200,
            "fps": FPS,
            "splits": {"train": f"0:{len(self._table_rows)}"},
            "data_path": DATA_PATH,
            "video_path": None,
            "features": features,
        }


def _encoded(episode: Episode, camera: str) -> list[bytes]:
    images = episode.images(camera)
    if isinstance(images, RecordedImages) and images.raw_shape is None:
        return [bytes(images.encoded[int(row)]) for row in images.rows]
    return [encode_jpeg(images[i], 95) for i in range(len(images))]


def _image_statistics(episode: Episode, camera: str, most: int = 50) -> dict[str, list[Any]]:
    """Per channel in 0..1, from at most ``most`` pictures, shaped (3, 1, 1) as LeRobot has it."""
    images = episode.images(camera)
    chosen = np.unique(np.linspace(0, len(images) - 1, most).astype(int))
    pixels = np.concatenate([images[int(i)][::4, ::4].reshape(-1, 3) for i in chosen]) / 255.0
    figures = statistics(pixels)
    shaped = {k: [[[v]] for v in value] for k, value in figures.items() if k != "count"}
    return {**shaped, "count": [len(chosen)]}


def _aggregate(parts: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Statistics of all episodes together; quantiles are the means of theirs, as LeRobot does."""
    count = np.array([part["count"][0] for part in parts], np.float64)
    stacked = {
        key: np.array([p[key] for p in parts], np.float64) for key in parts[0] if key != "count"
    }
    weight = (count / count.sum()).reshape(-1, *(1,) * (stacked["mean"].ndim - 1))
    mean = (stacked["mean"] * weight).sum(0)
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weight).sum(0)
    result = {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
    }
    quantiles = {key: (stacked[key] * weight).sum(0) for key in stacked if key.startswith("q")}
    return {k: v.tolist() for k, v in (result | quantiles).items()} | {"count": [int(count.sum())]}


def _more(episode: Episode) -> dict[str, Any]:
    return {
        "object_names": episode.object_names,
        "events": episode.events,
        "stages": episode.stages,
        "corrected": None if episode.intervention is None else episode.intervention.tolist(),
        "partial": episode.partial,
        "problems": episode.problems,
    }
