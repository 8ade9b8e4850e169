"""Value-overlay video of one episode: cameras on top, the critic's judgement below (MP4).

As in the paper's figures 7 and 12: the value runs along under the pictures over a ground that is
green where the step was judged good, yellow where unclear, red where bad; segments driven by a
person are marked. A lighter band holds 10 to 90 % of the critic's distribution, where it is known. The same is said in words, for those who cannot tell the colours.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexpie_ros.control.types import CONTROL_RATE_HZ
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import Labels
from dexpie_ros.evaluation.errors import EvaluationError
from dexpie_ros.evaluation.plots import spans

Image = NDArray[np.uint8]
GOOD, BAD = 2.0 / 3.0, 1.0 / 3.0
"""Optimality above which a step is called good, below which bad."""
_WORDS = ("bad", "unclear", "good")
# BGR; the three differ in lightness too.
_GROUNDS = ((60, 52, 150), (60, 170, 200), (90, 140, 40))
_INK, _DIM, _PAGE, _PERSON = (245, 245, 245), (150, 150, 150), (28, 25, 22), (0, 159, 230)
_CURVE_HEIGHT, _MARGIN = 150, 12
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def regions(optimality: ArrayLike) -> NDArray[np.int64]:
    """0 bad, 1 unclear, 2 good for each step (T,)."""
    good = np.asarray(optimality, np.float64)
    return np.where(good > GOOD, 2, np.where(good < BAD, 0, 1)).astype(np.int64)


def write_overlay(
    path: str | Path,
    episode: Episode,
    labels: Labels,
    cameras: Sequence[str] = (),
    height: int = 360,
    rate: float = float(CONTROL_RATE_HZ),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an MP4 of one frame per control step; returns its path.

    Args:
        path: Ends in ``.mp4``. The file appears when it is complete.
        episode: With images, unless ``cameras`` is empty and the episode has none either.
        labels: Of this episode.
        cameras: Names, side by side; empty: all that were recorded.
        height: Of the pictures, px.
        rate: Frames per second; 25 is real time.
        progress: Told frames done and in all after each; what it raises ends the work and leaves
            no file.

    Raises:
        EvaluationError: labels of another length, or no video writer for MP4 in this OpenCV.
    """
    if len(labels.value) != len(episode):
        raise EvaluationError(
            f"{episode.path}: {len(labels.value)} labels for {len(episode)} steps; label it again"
        )
    names = tuple(cameras) or tuple(episode.cameras)
    views = [episode.images(name) for name in names]
    first = _pictures([view[0] for view in views], height)
    width = max(first.shape[1], 640)
    below = _Curve(episode, labels, width)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".overlay.", suffix=".mp4")
    os.close(handle)
    try:
        size = (width, (first.shape[0] if names else 0) + _CURVE_HEIGHT)
        writer = cv2.VideoWriter(temporary, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not writer.isOpened():
            raise EvaluationError(
                f"{file}: this OpenCV cannot write MP4; install opencv with FFmpeg"
            )
        for t in range(len(episode)):
            lower = below.frame(t)
            upper = [_centred(_pictures([v[t] for v in views], height), width)] if names else []
            writer.write(np.concatenate([*upper, lower], axis=0))
            if progress is not None:
                progress(t + 1, len(episode))
        writer.release()
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return file


def _pictures(images: Sequence[Image], height: int) -> Image:
    """RGB images side by side at one height, as BGR."""
    row = []
    for image in images:
        width = max(1, round(image.shape[1] * height / image.shape[0]))
        bgr = np.ascontiguousarray(image[..., ::-1])
        row.append(np.asarray(cv2.resize(bgr, (width, height)), np.uint8))
    return np.concatenate(row, axis=1) if row else np.zeros((height, 1, 3), np.uint8)


def _centred(image: Image, width: int) -> Image:
    left = (width - image.shape[1]) // 2
    right = width - image.shape[1] - left
    return np.asarray(np.pad(image, ((0, 0), (left, right), (0, 0))), np.uint8)


class _Curve:
    """The lower panel: drawn once, then a cursor per frame."""

    def __init__(self, episode: Episode, labels: Labels, width: int) -> None:
        self._human, self._value = episode.human, np.asarray(labels.value, np.float64)
        self._judged = regions(labels.optimality)
        self._seconds = (episode.time_ns - episode.time_ns[0]) * 1e-9
        self._outcome = episode.outcome
        steps = len(episode)
        spread = () if labels.value_low is None else (labels.value_low, labels.value_high)
        rows = [self._value, *(np.asarray(row, np.float64) for row in spread)]
        low, high = min(float(r.min()) for r in rows), max(float(r.max()) for r in rows)
        self._x = np.linspace(_MARGIN, width - _MARGIN, max(steps, 2)).round().astype(int)
        top, bottom = 34, _CURVE_HEIGHT - _MARGIN - 14
        self._y, *self._spread = (
            (bottom - 6 - (row - low) / max(high - low, 1e-6) * (bottom - top - 12))
            .round()
            .astype(int)
            for row in rows
        )
        self._still = self._draw(width, top, bottom)
        self._top, self._bottom = top, bottom

    def _draw(self, width: int, top: int, bottom: int) -> Image:
        still = np.full((_CURVE_HEIGHT, width, 3), _PAGE, np.uint8)
        x = self._x
        for level, colour in enumerate(_GROUNDS):
            for a, b in spans(self._judged == level):
                right = x[min(b, len(x) - 1)]
                cv2.rectangle(still, (x[a], top), (right, bottom), colour, -1)
        for a, b in spans(self._human):
            right = x[min(b, len(x) - 1)]
            cv2.rectangle(still, (x[a], bottom + 4), (right, bottom + 10), _PERSON, -1)
            if a > 0:
                tip = np.array([[x[a] - 6, top - 9], [x[a] + 6, top - 9], [x[a], top]])
                cv2.fillPoly(still, [tip.astype(np.int32)], _PERSON, cv2.LINE_AA)
        if self._spread:
            lower, upper = (np.stack([x[: len(y)], y], axis=1) for y in self._spread)
            band = still.copy()
            cv2.fillPoly(band, [np.concatenate([lower, upper[::-1]]).astype(np.int32)], _INK)
            still = np.asarray(cv2.addWeighted(band, 0.3, still, 0.7, 0.0), np.uint8)
        line = np.stack([x[: len(self._y)], self._y], axis=1).astype(np.int32)
        cv2.polylines(still, [line], False, _INK, 2, cv2.LINE_AA)
        return still

    def frame(self, t: int) -> Image:
        out = self._still.copy()
        x = int(self._x[t])
        cv2.line(out, (x, self._top), (x, self._bottom), _INK, 1, cv2.LINE_AA)
        cv2.circle(out, (x, int(self._y[t])), 5, _INK, -1, cv2.LINE_AA)
        word = _WORDS[self._judged[t]]
        said = f"{self._seconds[t]:5.1f} s   value {self._value[t]:+.3f}   {word}"
        cv2.putText(out, said, (_MARGIN, 20), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
        last = t == len(self._value) - 1
        right = self._outcome if last else "person drives" if self._human[t] else "policy drives"
        colour = _INK if last else _PERSON if self._human[t] else _DIM
        (wide, _), _ = cv2.getTextSize(right, _FONT, 0.5, 1)
        place = (out.shape[1] - _MARGIN - wide, 20)
        cv2.putText(out, right, place, _FONT, 0.5, colour, 1, cv2.LINE_AA)
        return out
