"""`train_retargeting`: a calibration recording in, a learned hand retargeting out.

DexHiL's two stages (docs/operation.md#learned-retargeting). Trained in one go, a thumb that has to meet the fingertips
pulls the fingers with it, and the hand degenerates: fingers bend where the person's do not, because
that too shortens the distance. So the four fingers are fitted to the person's alone, frozen, and the
thumb then learns residuals from where they really go, with the distances between the fingertips
(weighted to where they are small: the pinch) in its loss.

The last part of the recording is held out in time; the report compares with the linear map there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from dexpie_ros.config import ConfigError, config, from_dict, provenance, to_dict, write_json
from dexpie_ros.control.calibration_motion import CalibrationRecording
from dexpie_ros.control.hand_geometry import thumb_distances
from dexpie_ros.control.retargeting import RetargetingConfig
from dexpie_ros.control.retargeting_learned import (
    COLUMNS,
    STAGE_1,
    STAGE_2,
    LearnedRetargeting,
    finger_corrections,
    linear_openings,
    scaled,
    thumb_corrections,
    untrained,
    weight_shapes,
)
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.geometry import Array

REPORT_FILE = "report.json"
FEWEST_SAMPLES = 300
PINCH_M = 0.03
"""m: fingertips nearer to each other than this pinch, or are about to"""


@config
class RetargetConfig:
    """Settings of the training."""

    hidden: int = Field(16, ge=1)
    iterations: int = Field(800, ge=1)
    """of each stage, on all samples at once"""
    learning_rate: float = Field(0.01, gt=0)
    bound: float = Field(0.5, gt=0, le=1)
    """largest correction of the linear map, in openings"""
    correction_penalty: float = Field(1e-3, ge=0)
    """on squared corrections: where the data say nothing, the linear map stays"""
    geometry_weight: float = Field(0.5, ge=0)
    """of the fingertip distances against the thumb's openings in stage 2"""
    heldout_share: float = Field(1 / 3, gt=0, lt=1)
    """of the recording, from its end"""
    largest_lag_s: float = Field(1.0, ge=0)
    """the operator's reaction time is looked for up to here"""
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class Errors:
    """Of one retargeting on the held-out samples."""

    opening_rmse: dict[str, float]
    """per channel"""
    pinch_index_mm: float
    """mean error of the thumb-index distance where the two were shown to pinch"""
    pinch_middle_mm: float
    finger_range: float
    """mean distance travelled by the four fingers, of 1: a degenerate hand travels less"""


@dataclass(frozen=True)
class RetargetReport:
    """What came out."""

    lag_s: float
    """reaction time that was found"""
    samples: int
    heldout: int
    pinch_samples: int
    """held out, thumb and index pinching"""
    linear: Errors
    learned: Errors


def train_retargeting(
    settings: RetargetConfig,
    recording: CalibrationRecording,
    out_dir: str | Path,
    progress: Callable[[str, int, int, float], None] | None = None,
) -> RetargetReport:
    """Fit the linear map and both stages, write model and report into ``out_dir``.

    ``progress`` is called with (stage, iteration, iterations, loss). Raises ConfigError where the
    recording is too short or a channel does not move in it.
    """
    if len(recording) < FEWEST_SAMPLES:
        raise ConfigError(
            f"calibration recording: {len(recording)} samples, at least {FEWEST_SAMPLES} are needed; "
            "record the whole motion"
        )
    split = round(len(recording) * (1.0 - settings.heldout_share))
    lag_s = find_lag(recording, split, settings.largest_lag_s)
    openings = shown_at(recording, lag_s)
    degrees = recording.ergonomics[:, COLUMNS]
    linear = fit_linear(degrees[:split], openings[:split])
    weights = _fit(settings, linear, degrees[:split], openings[:split], progress)
    made = {**provenance(), "settings": to_dict(settings), "samples": len(recording)}
    model = LearnedRetargeting(linear, weights, settings.bound, made)
    baseline = untrained(linear)
    test_degrees, test_openings = degrees[split:], openings[split:]
    report = RetargetReport(
        lag_s=lag_s,
        samples=len(recording),
        heldout=len(recording) - split,
        pinch_samples=int(np.sum(thumb_distances(test_openings)[:, 3] < PINCH_M)),
        linear=_errors(baseline, test_degrees, test_openings),
        learned=_errors(model, test_degrees, test_openings),
    )
    model.save(out_dir)
    write_json(Path(out_dir) / REPORT_FILE, dataclasses.asdict(report))
    return report


def shown_at(recording: CalibrationRecording, lag_s: float) -> Array:
    """What the operator saw when he began each sample's posture: openings (T, 6)."""
    seconds = (recording.time_ns - recording.time_ns[0]) * 1e-9
    columns = [np.interp(seconds - lag_s, seconds, recording.openings[:, i]) for i in range(6)]
    return np.stack(columns, axis=-1)


def find_lag(recording: CalibrationRecording, split: int, largest_s: float) -> float:
    """The delay at which the glove's values explain best, linearly, what was shown."""
    values = scaled(recording.ergonomics[:split, COLUMNS])
    design = np.concatenate([values, np.ones((split, 1))], axis=1)
    solve = np.linalg.pinv(design)
    best, found = np.inf, 0.0
    for lag in np.arange(0.0, largest_s + 1e-9, 0.02):
        target = shown_at(recording, float(lag))[:split]
        error = float(np.mean((design @ (solve @ target) - target) ** 2))
        if error < best:
            best, found = error, float(lag)
    return round(found, 6)


def fit_linear(degrees: Array, openings: Array) -> RetargetingConfig:
    """Reference values: medians where a channel was shown open and shown closed.

    Raises ConfigError naming the channel that was never shown so, or hardly moved.
    """
    defaults, channels = RetargetingConfig(), {}
    columns = dict(zip(HAND_JOINTS, (0, 3, 6, 9, 13, 12), strict=True))
    for index, joint in enumerate(HAND_JOINTS):
        values, shown = degrees[:, columns[joint]], openings[:, index]
        opened, closed = values[shown > 0.97], values[shown < 0.03]
        if not len(opened) or not len(closed):
            raise ConfigError(
                f"calibration recording: {joint} was not shown both open and closed; record the "
                "whole motion"
            )
        channels[joint] = {
            "ergonomics": getattr(defaults, joint).ergonomics,
            "open_deg": float(np.median(opened)),
            "closed_deg": float(np.median(closed)),
        }
    return from_dict(RetargetingConfig, channels, "calibration recording")


def _fit(
    settings: RetargetConfig,
    linear: RetargetingConfig,
    degrees: Array,
    openings: Array,
    progress: Callable[[str, int, int, float], None] | None,
) -> dict[str, Array]:
    import torch

    generator = torch.Generator().manual_seed(settings.seed)
    weights: dict[str, Any] = {}
    for name, shape in weight_shapes(settings.hidden).items():
        scale = 0.0 if name.endswith("bias") or "out" in name else shape[-2] ** -0.5
        weights[name] = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    channels = linear.channels()
    closed = torch.tensor([c.closed_deg for c in channels], dtype=torch.float64)
    travel = torch.tensor([c.open_deg for c in channels], dtype=torch.float64) - closed
    angles, target = torch.from_numpy(degrees), torch.from_numpy(openings)
    inputs, base = scaled(angles), linear_openings(angles, closed, travel)

    def run(stage: str, names: tuple[str, ...], loss_of: Callable[[], Any]) -> None:
        trained = [weights[name].requires_grad_(True) for name in names]
        optimizer = torch.optim.Adam(trained, lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations)
        for iteration in range(settings.iterations):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(stage, iteration + 1, settings.iterations, float(loss.detach()))
        for name in names:
            weights[name] = weights[name].detach()

    def finger_loss() -> Any:
        correction = finger_corrections(weights, inputs, settings.bound, torch)
        error = base[:, :4] + correction - target[:, :4]
        return (error**2).mean() + settings.correction_penalty * (correction**2).mean()

    run("fingers", STAGE_1, finger_loss)
    correction = finger_corrections(weights, inputs, settings.bound, torch)
    fingers = (base[:, :4] + correction).clip(0.0, 1.0)
    wanted = thumb_distances(target, torch)
    nearness = torch.exp(-((wanted / PINCH_M) ** 2))

    def thumb_loss() -> Any:
        correction = thumb_corrections(weights, inputs, fingers, settings.bound, torch)
        thumb = base[:, 4:] + correction
        error = ((thumb - target[:, 4:]) ** 2).mean()
        distances = thumb_distances(torch.concatenate([fingers, thumb], -1), torch)
        geometry = (nearness * ((distances - wanted) / PINCH_M) ** 2).mean()
        penalty = settings.correction_penalty * (correction**2).mean()
        return error + settings.geometry_weight * geometry + penalty

    run("thumb", STAGE_2, thumb_loss)
    return {name: value.numpy() for name, value in weights.items()}


def _errors(model: LearnedRetargeting, degrees: Array, openings: Array) -> Errors:
    found = model.openings(degrees)
    rmse = np.sqrt(np.mean((found - openings) ** 2, axis=0))
    wanted, got = thumb_distances(openings), thumb_distances(found)

    def pinch_mm(finger: int) -> float:
        near = wanted[:, finger] < PINCH_M
        error = np.abs(got - wanted)[near, finger]
        return float(1e3 * error.mean()) if len(error) else 0.0

    return Errors(
        opening_rmse={n: float(v) for n, v in zip(HAND_JOINTS, rmse, strict=True)},
        pinch_index_mm=pinch_mm(3),
        pinch_middle_mm=pinch_mm(2),
        finger_range=float(np.ptp(found[:, :4], axis=0).mean()),
    )
