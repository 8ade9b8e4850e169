"""`dexpie train retarget`: a learned hand retargeting from a recorded calibration motion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexpie_ros import config as configs
from dexpie_ros.command_line import add_set

if TYPE_CHECKING:
    from dexpie_ros.training.retarget import RetargetConfig


def add_retarget(actions: Any) -> None:
    """Add `retarget` to the actions of `dexpie train`."""
    parser = actions.add_parser(
        "retarget", help="train a hand retargeting from a recorded calibration motion"
    )
    parser.add_argument("recording", type=Path, help="JSON of `dexpie-glove_motion`")
    parser.add_argument("--config", type=Path, default=None, help="YAML with settings")
    add_set(parser, _defaults)
    parser.add_argument(
        "--output", type=Path, required=True, help="directory for teleop.learned_retargeting"
    )
    parser.set_defaults(run=_train_retarget)


def _defaults(_options: argparse.Namespace) -> RetargetConfig:
    from dexpie_ros.training.retarget import RetargetConfig

    return RetargetConfig()


def _train_retarget(options: argparse.Namespace) -> int:
    from rich.progress import Progress, TextColumn

    from dexpie_ros.control.calibration_motion import CalibrationRecording
    from dexpie_ros.training.retarget import train_retargeting

    settings = configs.overridden(
        _defaults(options), options.set, "retargeting settings", options.config
    )
    recording = CalibrationRecording.load(options.recording)
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[loss]}")) as bars:
        tasks = {
            stage: bars.add_task(stage, total=settings.iterations, loss="")
            for stage in ("fingers", "thumb")
        }

        def report(stage: str, done: int, total: int, loss: float) -> None:
            bars.update(tasks[stage], completed=done, total=total, loss=f"loss {loss:.5f}")

        found = train_retargeting(settings, recording, options.output, report)
    print(
        f"{found.samples} samples, the last {found.heldout} held out; reaction {found.lag_s:.2f} s"
    )
    print(f"{'':16} {'linear':>8} {'learned':>8}")
    for joint, error in found.linear.opening_rmse.items():
        print(f"{joint:16} {error:8.3f} {found.learned.opening_rmse[joint]:8.3f}   opening, RMSE")
    for name, unit in (
        ("pinch_index_mm", f"mm, {found.pinch_samples} pinching samples"),
        ("pinch_middle_mm", "mm"),
        ("finger_range", "of 1; less is a hand that degenerates"),
    ):
        values = getattr(found.linear, name), getattr(found.learned, name)
        print(f"{name:16} {values[0]:8.3f} {values[1]:8.3f}   {unit}")
    print(f"retargeting: {options.output}; use it with teleop.learned_retargeting")
    return 0
