"""What a critic says of an episode, in a sidecar beside the bag: ``labels/<tag>.safetensors``.

The bag never changes; labels come and go by tag and carry the hash of the critic that made them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dexpie_ros import config
from dexpie_ros.episodes.episode import Episode, EpisodeError

Row = NDArray[np.float32]
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_ROWS = ("value", "advantage", "optimality")
_SPREAD = ("value_low", "value_high")


@dataclass(frozen=True, eq=False)
class Labels:
    """Per control step (T,), float32: value V, advantage A, optimality I in 0..1."""

    value: Row
    advantage: Row
    optimality: Row
    meta: dict[str, Any] = field(default_factory=dict)
    """JSON; ``critic`` is the hash of the critic's weights, and must be there to be written."""
    value_low: Row | None = None
    """10 % quantile of the critic's distribution; None in labels from before it was kept."""
    value_high: Row | None = None
    """90 % quantile; there if and only if the other is. The value, its mean, may lie outside."""

    def __post_init__(self) -> None:
        if (self.value_low is None) != (self.value_high is None):
            raise EpisodeError("labels: value_low and value_high belong together, one is missing")
        for name in self.rows:
            row = np.ascontiguousarray(getattr(self, name), np.float32)
            if row.ndim != 1 or len(row) != len(np.atleast_1d(self.value)):
                raise EpisodeError(f"labels: {name} has shape {row.shape}, expected one per step")
            object.__setattr__(self, name, row)

    def __len__(self) -> int:
        return len(self.value)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows that are there."""
        return _ROWS if self.value_low is None else (*_ROWS, *_SPREAD)


def verdict(episode: Episode) -> dict[str, Any]:
    """What people say of an episode that critics and labels rest on, as JSON.

    All of it may be annotated anew while the bag stays what it is.
    """
    human = hashlib.sha256(np.packbits(episode.human).tobytes()).hexdigest()[:16]
    info = episode.info
    return {
        "outcome": info.outcome,
        "kind": info.kind,
        "use_for_critic": info.use_for_critic,
        "human": human,
    }


def require_current(episode: Episode, labels: Labels) -> None:
    """EpisodeError where the episode was cut, or annotated anew, since it was labelled."""
    if len(labels) != len(episode):
        raise EpisodeError(
            f"{episode.path}: {len(labels)} labels for {len(episode)} steps; the episode changed "
            "since it was labelled: label it again"
        )
    before, now = labels.meta.get("verdict"), verdict(episode)
    if before is None or before == now:  # labels of earlier versions do not say
        return
    changed = [key for key in now if before.get(key) != now[key]]
    raise EpisodeError(
        f"{episode.path}: {', '.join(changed)} annotated anew since it was labelled; train the "
        "critic again where an outcome changed, and label again"
    )


def labels_path(directory: str | Path, tag: str) -> Path:
    """Where the labels of ``tag`` lie; EpisodeError if the tag is no plain name."""
    if not _TAG.fullmatch(tag):
        raise EpisodeError(f"label tag {tag!r}: letters, digits, dot, dash, underscore only")
    return Path(directory) / "labels" / f"{tag}.safetensors"


def write_labels(directory: str | Path, tag: str, labels: Labels) -> Path:
    """Write atomically, replacing labels of the same tag. EpisodeError without a critic's hash."""
    path = labels_path(directory, tag)
    if not isinstance(labels.meta.get("critic"), str) or not labels.meta["critic"]:
        raise EpisodeError(f"{path}: meta['critic'] must hold the hash of the critic")
    for name in labels.rows:
        if not np.all(np.isfinite(getattr(labels, name))):
            raise EpisodeError(f"{path}: {name} holds values that are not numbers")
    meta = json.dumps(labels.meta, allow_nan=False)
    rows = {name: getattr(labels, name) for name in labels.rows}
    config.write_atomic(path, save(rows, metadata={"labels": meta}))
    return path


def read_labels(directory: str | Path, tag: str, critic: str = "", steps: int = -1) -> Labels:
    """Read the labels of ``tag``; EpisodeError if missing, damaged, of another critic or length."""
    path = labels_path(directory, tag)
    if not path.is_file():
        known = ", ".join(label_tags(directory)) or "none"
        raise EpisodeError(f"{path}: no such labels (there are: {known}); run `dexpie label`")
    try:
        with safe_open(path, framework="numpy") as stream:
            meta = json.loads((stream.metadata() or {})["labels"])
            there = set(stream.keys())
            kept = _ROWS + tuple(name for name in _SPREAD if name in there)
            rows = {name: stream.get_tensor(name) for name in kept}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise EpisodeError(f"{path}: cannot be read ({error}); run `dexpie label` again") from None
    labels = Labels(**rows, meta=meta)
    if critic and meta.get("critic") != critic:
        raise EpisodeError(
            f"{path}: made by critic {meta.get('critic')}, wanted {critic}; run `dexpie label` again"
        )
    if steps >= 0 and len(labels) != steps:
        raise EpisodeError(
            f"{path}: {len(labels)} labels for {steps} steps; run `dexpie label` again"
        )
    return labels


def current_labels(episode: Episode, tag: str, critic: str) -> Labels:
    """:func:`read_labels` of an episode, by this critic and of what people say of it now."""
    labels = read_labels(episode.path, tag, critic, len(episode))
    require_current(episode, labels)
    return labels


def label_tags(directory: str | Path) -> list[str]:
    """Tags with labels beside this episode."""
    return sorted(path.stem for path in (Path(directory) / "labels").glob("*.safetensors"))
