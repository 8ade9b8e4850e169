"""What a run says while it goes: to the caller, to metrics.jsonl, to TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
        self.board = None
        if settings.tensorboard and self.file is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.file.parent / "tensorboard"))  # type: ignore[no-untyped-call]
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
        if self.board is not None:
            self.board.add_scalar("loss", loss, step)  # type: ignore[no-untyped-call]
            self.board.add_scalar("learning_rate", rate, step)  # type: ignore[no-untyped-call]
        if self.progress is not None:
            self.progress(now)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()  # type: ignore[no-untyped-call]
