"""Training windows: what the actor saw at a step, and the H commands executed from there on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.episodes.cache import fingerprint
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.geometry import Array
from dexpie_ros.policy import actions
from dexpie_ros.policy.observation import ObservationSpec

MAX_LEAD = 0.15
"""m. A robot that follows is at most 0.06 m behind. One that is wedged or out of reach may be a metre
away; the scale of positions covers all windows, so a single such episode blurred every action:
2 of 100 starts mastered instead of 50."""


class DatasetError(ValueError):
    """Episodes that give no usable windows; says what to do."""


@dataclass(frozen=True, eq=False)
class Windows:
    """N windows. Row i starts at step ``tick[i]`` of episode ``episode[i]``."""

    vector: NDArray[np.float32]
    """(N, D) observation, not normalised"""
    actions: Array
    """(N, H, 15) relative to the measured TCP of the window's first step; slots behind the end of
    the episode repeat its last command"""
    valid: NDArray[np.int64]
    """(N,) slots within the episode, 1 .. H"""
    human: Array
    """(N,) share of the valid slots that the operator decided"""
    episode: NDArray[np.int64]
    tick: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tick)

    def rows(self, chosen: NDArray[np.bool_]) -> Windows:
        """Those of ``chosen`` (N,); ``episode`` counts the same episodes as before."""
        return Windows(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @property
    def reach(self) -> Array:
        """(N,) largest |dp| in m over the offsets of each window."""
        positions = self.actions[..., actions.POSITION]
        found: Array = np.linalg.norm(positions, axis=-1).max(axis=-1, initial=0.0)
        return found

    @property
    def largest_position(self) -> float:
        """Largest |dp| in m over all offsets of all windows."""
        return float(self.reach.max(initial=0.0))

    def content_hash(self) -> str:
        """SHA-256 of everything in here: the numbers that a run was trained on."""
        return arrays_hash(
            self.vector, self.actions, self.valid, self.human, self.episode, self.tick
        )


def arrays_hash(*arrays: NDArray[Any]) -> str:
    """SHA-256 of the contents of ``arrays``, in their order."""
    digest = hashlib.sha256()
    for part in arrays:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def episodes_hash(episodes: Sequence[Episode], pictures: bool) -> str:
    """SHA-256 of which episodes these are and, with ``pictures``, of what their cameras saw.

    Pictures are known by the bag they are in; an episode without a bag must be looked at whole.
    """
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(json.dumps([episode.id, episode.info.kind, episode.outcome]).encode())
        if pictures and episode.path.is_dir():
            digest.update(fingerprint(episode.path).encode())
        elif pictures:
            for camera in sorted(episode.cameras):
                seen = episode.images(camera)
                for index in range(len(seen)):
                    digest.update(np.ascontiguousarray(seen[index]).tobytes())
    return digest.hexdigest()


def episode_windows(
    episode: Episode,
    spec: ObservationSpec,
    horizon: int,
    first_tick: int = 0,
    skip_flagged: bool = True,
    max_lead: float = MAX_LEAD,
) -> Windows:
    """All windows of one episode from ``first_tick`` on.

    A window ends before a command that was not recorded, or that the robot did not follow (further
    than ``max_lead``, m, from where it was measured); windows without an observation are left out,
    and so are flagged steps (some stream was out of tolerance) unless asked for.
    """
    steps = len(episode)
    vector = spec.from_episode(episode)
    obstacles = _obstacles(episode, vector, first_tick, skip_flagged, max_lead)
    recorded = ~(obstacles[NO_COMMAND] | obstacles[NOT_FOLLOWED])
    # First step at or after t whose command is missing; the episode's end where none is.
    gaps = np.where(recorded, steps, np.arange(steps))
    end = np.minimum.accumulate(gaps[::-1])[::-1]
    tick = np.flatnonzero(~np.any(list(obstacles.values()), axis=0))
    slots = tick[:, None] + np.arange(horizon)
    last = end[tick, None] - 1
    index = np.minimum(slots, last)
    encoded = actions.encode(
        episode.tcp[tick], episode.command_tcp[index], episode.command_hand[index]
    )
    inside = slots <= last
    human = (episode.human[index] & inside).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
    return Windows(
        vector[tick],
        encoded,
        inside.sum(axis=1).astype(np.int64),
        human,
        np.zeros(len(tick), np.int64),
        tick,
    )


def left_out(
    episode: Episode,
    spec: ObservationSpec,
    first_tick: int = 0,
    skip_flagged: bool = True,
    max_lead: float = MAX_LEAD,
) -> dict[str, int]:
    """Steps that begin no window though the recipe wants them, by the first reason that holds."""
    obstacles = _obstacles(episode, spec.from_episode(episode), first_tick, skip_flagged, max_lead)
    counts, counted = {}, obstacles.pop(BEFORE)
    for reason, there in obstacles.items():
        counts[reason] = int((there & ~counted).sum())
        counted = counted | there
    return counts


def _obstacles(
    episode: Episode,
    vector: NDArray[np.float32],
    first_tick: int,
    skip_flagged: bool,
    max_lead: float,
) -> dict[str, NDArray[np.bool_]]:
    """Why a step begins no window, (T,) each."""
    command = np.isfinite(episode.command_tcp).all(axis=(1, 2))
    command &= np.isfinite(episode.command_hand).all(axis=1)
    lead = np.linalg.norm(episode.command_tcp[:, :3, 3] - episode.tcp[:, :3, 3], axis=1)
    seen = np.isfinite(vector).all(axis=1) & np.isfinite(episode.tcp).all(axis=(1, 2))
    return {
        BEFORE: np.arange(len(episode)) < first_tick,
        NO_COMMAND: ~command,
        NOT_SEEN: ~seen,
        NOT_FOLLOWED: lead > max_lead,
        FLAGGED: episode.flags.astype(bool) & skip_flagged,
    }


BEFORE = "before what the recipe learns"
NO_COMMAND = "the command was not recorded"
NOT_SEEN = "a measurement is missing"
NOT_FOLLOWED = "the robot was further from its command than data.max_lead"
FLAGGED = "a stream was late there (data.skip_flagged; a camera slower than 20 Hz always is)"


def concatenate(parts: Sequence[Windows]) -> Windows:
    """Windows of several episodes; ``episode`` becomes the index into ``parts``."""
    kept = [part for part in parts if len(part)]
    if not kept:
        raise DatasetError(
            "no training windows: no episode of the recipe holds a step with observation and "
            "command; `dexpie episodes list` shows outcomes and kinds"
        )
    number = [np.full(len(part), i, np.int64) for i, part in enumerate(parts)]
    return Windows(
        np.concatenate([p.vector for p in kept]),
        np.concatenate([p.actions for p in kept]),
        np.concatenate([p.valid for p in kept]),
        np.concatenate([p.human for p in kept]),
        np.concatenate(number),
        np.concatenate([p.tick for p in kept]),
    )
