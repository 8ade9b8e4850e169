"""Episodes -> robomimic HDF5 (one group per demonstration, filter keys under ``mask``).

Names of observations are those that robomimic's configs expect; actions are absolute TCP commands
(position, rot6d by columns) and openings, all within [-1, 1] as robomimic requires.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config, geometry
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.formats.lerobot_features import action
from dexpie_ros.episodes.formats.optional import require
from dexpie_ros.episodes.images import IMAGE_SIZE

CAMERA_NAMES = {"front": "agentview_image", "wrist": "robot0_eye_in_hand_image"}


def export_robomimic(
    episodes: Iterable[Episode], path: str | Path, *, image_size: int = IMAGE_SIZE
) -> Path:
    """Write a robomimic data set to ``path`` (a new ``.hdf5`` file).

    Filter keys: ``success``, ``failure`` and each kind of episode. EpisodeError for episodes whose
    state or command was lost somewhere, or whose actions leave [-1, 1].
    """
    h5py = require("h5py", "the robomimic export")
    file = Path(path)
    if file.exists():
        raise EpisodeError(f"{file}: exists; choose another file for the export")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.part")
    masks: dict[str, list[str]] = {}
    total = 0
    try:
        with h5py.File(temporary, "w") as out:
            data = out.create_group("data")
            for number, episode in enumerate(episodes):
                name = f"demo_{number}"
                _write(data.create_group(name), episode, image_size)
                total += len(episode)
                keys: tuple[str, ...] = (episode.outcome or "unjudged", episode.info.kind)
                for key in keys:
                    masks.setdefault(key, []).append(name)
            if not masks:
                raise EpisodeError(f"{file}: no episodes to export")
            data.attrs["total"] = total
            data.attrs["env_args"] = json.dumps(
                {"env_name": "dexpie_ros", "type": 1, "env_kwargs": {"control_freq": 25}}
            )
            for key, names in masks.items():
                out.create_dataset(f"mask/{key}", data=np.array(names, "S"))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def _write(group: Any, episode: Episode, image_size: int) -> None:
    steps = len(episode)
    actions = action(episode).astype(np.float64)
    observed = _observations(episode)
    broken = [k for k, v in {"actions": actions, **observed}.items() if not np.isfinite(v).all()]
    if broken:
        raise EpisodeError(
            f"{episode.path}: {', '.join(broken)} were lost at some steps; leave this episode out"
        )
    if np.abs(actions).max() > 1.0:
        raise EpisodeError(
            f"{episode.path}: an action of {np.abs(actions).max():.3f}; robomimic wants [-1, 1], and "
            "no TCP of this cell is farther than 1 m from its base"
        )
    group.attrs["num_samples"] = steps
    group.attrs["episode_info"] = json.dumps(config.to_dict(episode.info))
    end = np.arange(steps) == steps - 1
    group.create_dataset("actions", data=actions)
    group.create_dataset("rewards", data=(end & episode.success).astype(np.float64))
    group.create_dataset("dones", data=end.astype(np.int64))
    group.create_dataset("interventions", data=episode.human.astype(np.int64))
    group.create_dataset("time_ns", data=episode.time_ns)
    following = np.minimum(np.arange(steps) + 1, steps - 1)
    for name, values in observed.items():
        group.create_dataset(f"obs/{name}", data=values)
        group.create_dataset(f"next_obs/{name}", data=values[following])
    for camera, name in CAMERA_NAMES.items():
        if camera not in episode.cameras:
            continue
        images = episode.images(camera)
        stored = group.create_dataset(
            f"obs/{name}",
            shape=(steps, image_size, image_size, 3),
            dtype=np.uint8,
            chunks=(1, image_size, image_size, 3),
            compression="gzip",
            compression_opts=1,
        )
        for k in range(steps):
            stored[k] = images.shrunk(k, image_size)


def _observations(episode: Episode) -> dict[str, NDArray[np.float64]]:
    found = {
        "robot0_eef_pos": episode.tcp[:, :3, 3],
        "robot0_eef_quat": geometry.matrix_to_quaternion(episode.tcp[:, :3, :3]),
        "robot0_joint_pos": episode.joints,
        "robot0_gripper_qpos": episode.hand,
    }
    if episode.object_names:
        found["object"] = episode.objects.reshape(len(episode), -1)
    return found
