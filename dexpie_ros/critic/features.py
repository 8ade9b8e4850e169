"""Episodes as rows of numbers for the critic: (T, D) float32.

The observation vector is the one that actors use (`policy.observation`); on top of it come features
that only the critic needs, computed from the same recorded state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.settings import FeatureConfig
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.geometry import Array, invert, quaternion_to_matrix
from dexpie_ros.policy.observation import ObservationSpec

NEAR_M = (0.02, 0.05, 0.15)
"""Ranges of the near-field features exp(-distance / range): contact, pre-grasp, approach."""


def resolve(settings: FeatureConfig, episodes: Sequence[Episode]) -> tuple[str, ...]:
    """The objects to look at: those configured, or all that every episode holds.

    Raises:
        CriticError: episodes disagree about their objects, lack a configured one, or hold nothing
            of the task that the critic could look at.
    """
    looked_at = settings.relations or any(part.startswith("objects") for part in settings.parts)
    wanted = settings.object_names or (tuple(episodes[0].object_names) if looked_at else ())
    if looked_at and not wanted and not settings.images:
        raise CriticError(
            f"{episodes[0].path}: holds no object poses (only a simulator knows them), and "
            "features.images names no camera: the critic would see the hand alone. Set "
            "features.images=[front,wrist] and features.encoder.weights=FILE (R3M; random to begin "
            "from nothing)"
        )
    for episode in episodes:
        missing = [name for name in wanted if name not in episode.object_names]
        if missing:
            raise CriticError(
                f"{episode.path}: no pose of {', '.join(missing)} (it has: "
                f"{', '.join(episode.object_names) or 'none'}); train on one task at a time, or "
                "set features.object_names to what all episodes share"
            )
    return wanted


Encode = Callable[[Episode], NDArray[np.float32]]
"""Features of an episode's images, (T, F)."""


def features(
    episode: Episode, settings: FeatureConfig, encode: Encode | None = None
) -> NDArray[np.float32]:
    """Rows (T, D) of one episode. ``settings.object_names`` must be resolved; ``encode`` is needed
    where the settings name cameras.

    Raises:
        CriticError: a feature is not finite, which says which episode to repair or exclude.
    """
    spec = ObservationSpec(parts=settings.parts, object_names=settings.object_names)
    columns: list[Array] = [np.asarray(spec.from_episode(episode), np.float64)]
    if settings.relations:
        columns.append(_relations(episode, settings.object_names))
    if settings.contact:
        if not episode.object_names:
            raise CriticError(
                f"{episode.path}: no simulator recorded whether the hand touches anything; set "
                "features.contact=false"
            )
        columns.append(np.asarray(episode.contact, np.float64)[:, None])
    if settings.motion_steps:
        columns.append(_motion(episode, settings.object_names, settings.motion_steps))
    if settings.images:
        if encode is None:
            raise CriticError("the critic looks at images; give it its image encoder")
        columns.append(np.asarray(encode(episode), np.float64))
    rows = np.concatenate(columns, axis=1).astype(np.float32)
    if not np.all(np.isfinite(rows)):
        bad = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise CriticError(
            f"{episode.path}: the state at control step {bad} is not finite; repair the episode "
            "(`dexpie episodes repair`) or exclude it"
        )
    return rows


def _chosen(episode: Episode, names: Sequence[str]) -> Array:
    index = [episode.object_names.index(name) for name in names]
    return np.asarray(episode.objects, np.float64)[:, index]


def _relations(episode: Episode, names: Sequence[str]) -> Array:
    """Distances hand-object and object-object, object tilt and height, finger closure (T, .)."""
    poses = _chosen(episode, names)
    length = len(episode)
    columns: list[Array] = []
    to_tcp = invert(episode.tcp)
    for k in range(len(names)):
        position = poses[:, k, :3]
        local = (to_tcp[:, :3, :3] @ position[..., None])[..., 0] + to_tcp[:, :3, 3]
        columns.append(np.clip(local, -0.15, 0.15) / 0.05)
        columns.append(_near(local))
        up = quaternion_to_matrix(poses[:, k, 3:])[..., :, 2]
        columns.append(np.concatenate([up[:, :2] * 5.0, position[:, 2:] / 0.04], axis=1))
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            offset = poses[:, b, :3] - poses[:, a, :3]
            columns.append(offset / 0.1)
            columns.append(_near(offset[:, :2]))
    fingers = np.asarray(episode.hand, np.float64)[:, :4]
    mean = fingers.mean(axis=1, keepdims=True)
    columns.append(np.concatenate([mean, np.clip(fingers - mean, -0.5, 0.5) / 0.2], axis=1))
    return np.concatenate(columns, axis=1).reshape(length, -1)


def _near(offset: Array) -> Array:
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    return np.concatenate(
        [distance / 0.1, *(np.exp(-distance / scale) for scale in NEAR_M)], axis=1
    )


def _motion(episode: Episode, names: Sequence[str], steps: int) -> Array:
    """Displacements over the last ``steps`` control steps (fewer at the start): (T, .)."""
    before = np.maximum(np.arange(len(episode)) - steps, 0)
    tcp = np.asarray(episode.tcp, np.float64)[:, :3, 3]
    hand = np.asarray(episode.hand, np.float64)
    poses = _chosen(episode, names)[..., :3]
    moved = [tcp, *(poses[:, k] for k in range(len(names)))]
    return np.concatenate(
        [*((x - x[before]) / 0.05 for x in moved), (hand - hand[before]) / 0.2], axis=1
    )
