"""What a run says while it goes: to the caller, to metrics.jsonl, TensorBoard and wandb."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dexpie_ros.config import ConfigError, to_dict

if TYPE_CHECKING:
    from dexpie_ros.training.loop import LoopConfig


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int
    total: int
    loss: float
    """Mean since the last report."""
    learning_rate: float
    samples_per_s: float
    remaining_s: float


class Report:
    """Progress to the caller, to metrics.jsonl and, if wanted, to TensorBoard."""

    def __init__(
        self,
        folder: Path | None,
        settings: LoopConfig,
        main: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.settings = settings
        self.progress = progress if main else None
        self.file = None if folder is None or not main else folder / "metrics.jsonl"
        self.board: Any = None
        self.wandb: Any = None
        if settings.tensorboard and self.file is not None:
            library = _library("torch.utils.tensorboard", "tensorboard")
            self.board = library.SummaryWriter(str(self.file.parent / "tensorboard"))
        if settings.wandb and self.file is not None:
            self.wandb = _library("wandb", "wandb").init(
                project="dexpie_ros",
                name=self.file.parent.absolute().name,
                dir=str(self.file.parent),
                config=to_dict(settings),
            )
        self._reported = 0

    def write(
        self, step: int, total: int, first: int, losses: list[Tensor], rate: float, since: float
    ) -> None:
        loss = float(torch.stack(losses[self._reported :]).float().mean())
        self._reported = len(losses)
        speed = (step - first) / since
        now = Progress(
            step, total, loss, rate, speed * self.settings.batch_size, (total - step) / speed
        )
        if self.file is not None:
            row = {"step": step, "loss": loss, "lr": rate, "samples_per_s": now.samples_per_s}
            with open(self.file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        values = {"loss": loss, "learning_rate": rate, "samples_per_s": now.samples_per_s}
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(values, step=step)
        if self.progress is not None:
            self.progress(now)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _library(module: str, option: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"loop.{option}: {error}; install the extra: pip install 'dexpie_ros[track]', or set "
            f"loop.{option}=false"
        ) from None
