"""The one training loop: accelerate, AdamW, cosine with warm-up, EMA, exact resume.

All randomness of a step follows from (seed, rank, step) and the order of the windows from (seed,
epoch), so an interrupted run that resumes goes through the same numbers as one that was not, and
all methods see the same windows in the same order.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from dexpie_ros.config import config
from dexpie_ros.geometry import Array
from dexpie_ros.policy.actor import Actor, Batch
from dexpie_ros.policy.diffusion import draw
from dexpie_ros.policy.files import remove_leftovers
from dexpie_ros.training.checkpoint import Checkpoint
from dexpie_ros.training.interrupts import between_steps
from dexpie_ros.training.reporting import Progress, Report
from dexpie_ros.training.sampling import Sampler

__all__ = ["Data", "Loop", "LoopConfig", "Progress", "Result", "TrainingError"]

_log = logging.getLogger(__name__)


class TrainingError(ValueError):
    """A run that cannot go on; says where it stands and what to do."""


@config
class LoopConfig:
    """Optimisation settings; the defaults are the paper's."""

    batch_size: Annotated[int, Field(ge=1)] = 256
    """Over all processes."""
    epochs: Annotated[int, Field(ge=1)] = 300
    iterations: Annotated[int, Field(ge=0)] = 0
    """Steps; 0 takes `epochs`."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-6
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    grad_clip: Annotated[float, Field(gt=0.0)] = 1.0
    ema_power: Annotated[float, Field(gt=0.0)] = 0.75
    ema_max: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9999
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(default=0, ge=0)
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000
    """Steps."""
    log_every: Annotated[int, Field(ge=1)] = 50
    device: Literal["auto", "cpu"] = "auto"
    tensorboard: bool = False
    """Curves into the run's folder; needs the extra `track`."""
    wandb: bool = False
    """Curves to Weights & Biases (WANDB_MODE=offline: into the run's folder); extra `track`."""


class Data(Protocol):
    """Windows on the device of the network."""

    def __len__(self) -> int: ...

    def batch(self, rows: NDArray[np.int64], generator: torch.Generator) -> Batch:
        """Windows ``rows`` with whatever noise the data wants."""
        ...

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """The next batch will be ``rows``."""
        ...


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run."""

    actor: Actor
    """With the averaged weights."""
    losses: NDArray[np.float32]
    """Of every step since this call began."""
    samples_per_s: float


def total_steps(settings: LoopConfig, windows: int) -> int:
    """Optimisation steps of a run over ``windows`` windows."""
    if settings.iterations:
        return settings.iterations
    return settings.epochs * max(1, math.ceil(windows / settings.batch_size))


def learning_rate(settings: LoopConfig, step: int, total: int) -> float:
    """Linear warm-up, then half a cosine to zero; ``step`` counts from 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def ema_decay(settings: LoopConfig, step: int) -> float:
    """``1 - (1 + step)^-power``, at most ``ema_max`` (diffusion_policy's ema_model)."""
    return min(settings.ema_max, max(0.0, 1.0 - (1.0 + step) ** -settings.ema_power))


class Loop:
    """One run: holds network, average, optimiser and step; read :meth:`run` from top to bottom."""

    def __init__(self, actor: Actor, settings: LoopConfig, folder: Path | None = None) -> None:
        """A checkpoint in ``folder`` is resumed from. Raises CheckpointError where it does not fit."""
        self.settings, self.folder = settings, folder
        self.accelerator = Accelerator(cpu=settings.device == "cpu")
        self.device = self.accelerator.device
        self.actor = actor.to(self.device).train()
        self.average = copy.deepcopy(self.actor).eval().requires_grad_(False)
        self.trained: list[Tensor] = [p for p in self.actor.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.network: nn.Module = self.accelerator.prepare(self.actor)
        named = dict(self.average.named_parameters())
        self._averaged: list[Tensor] = [
            named[n] for n, p in self.actor.named_parameters() if p.requires_grad
        ]
        self.step = 0
        self._torn = False
        self._bad_step = 0
        self._health: list[Tensor] = []
        """Loss + norm of the gradient of the steps since the last look at them."""
        self.checkpoint = None if folder is None else Checkpoint(folder / "checkpoint.safetensors")
        if self.checkpoint is not None and self.accelerator.is_main_process:
            remove_leftovers(self.checkpoint.path)
        if self.checkpoint is not None and self.checkpoint.exists():
            self.step = self.checkpoint.load(self.actor, self.average, self.optimizer)

    def run(
        self,
        data: Data,
        progress: Callable[[Progress], None] | None = None,
        weights: Array | None = None,
    ) -> Result:
        """Train to the end. Ctrl-C ends the step, saves a checkpoint and raises KeyboardInterrupt;
        the next run resumes there.

        ``weights`` (N,) say how often each window is drawn; without them all are equal.

        Raises TrainingError where the loss or its gradient is not finite: nothing is saved then, so
        the last good checkpoint stays.
        """
        settings, total = self.settings, total_steps(self.settings, len(data))
        sampler = Sampler(settings.seed, len(data), weights)
        generator = torch.Generator(self.device)
        losses: list[Tensor] = []
        began, first = time.perf_counter(), self.step
        report = Report(self.folder, settings, self.accelerator.is_main_process, progress)
        try:
            with between_steps() as interrupted:
                while self.step < total:
                    rate = learning_rate(settings, self.step, total)
                    losses.append(self._update(data, sampler, generator, rate))
                    if self.step % settings.log_every == 0 or self.step == total:
                        self._check()
                        since = max(time.perf_counter() - began, 1e-9)
                        report.write(self.step, total, first, losses, rate, since)
                    if self.step % settings.checkpoint_every == 0 and self.step < total:
                        self.save()
                    if interrupted():
                        raise KeyboardInterrupt
        finally:
            # Also on an interrupt: nothing learned is lost.
            report.close()
            self._save_if_whole()
        seconds = max(time.perf_counter() - began, 1e-9)
        values = torch.stack(losses).float().cpu().numpy() if losses else np.zeros(0, np.float32)
        return Result(self.average, values, (self.step - first) * settings.batch_size / seconds)

    def _rows(self, sampler: Sampler, step: int) -> NDArray[np.int64]:
        """This process's share of the global batch."""
        rows = sampler.rows(step, self.settings.batch_size)
        return rows[self.accelerator.process_index :: self.accelerator.num_processes]

    def save(self) -> None:
        """Write the checkpoint, if this process is the one that writes.

        Raises TrainingError where there is nothing good to write; the file stays as it is.
        """
        self._check()
        if self._torn:
            raise TrainingError(
                f"step {self.step + 1} was broken off half-way; the checkpoint before it stays"
            )
        if self.checkpoint is not None and self.accelerator.is_main_process:
            origin = self.actor.encoder.origin if self.actor.encoder is not None else ""
            self.checkpoint.save(
                self.step, self.actor, self.average, self.optimizer, {"encoder_origin": origin}
            )

    def _save_if_whole(self) -> None:
        """What is left to do when the loop ends, for whatever reason: must not hide that reason."""
        try:
            self.save()
        except TrainingError as error:
            _log.warning("not saved: %s", error)

    def _check(self) -> None:
        """Raise TrainingError where a step since the last look gave a loss that is not finite.

        The values are looked at in bulk: each look makes a GPU wait.
        """
        if self._health:
            good = torch.isfinite(torch.stack(self._health)).cpu().numpy()
            if not good.all():
                self._bad_step = self.step - len(good) + int(np.argmin(good)) + 1
            self._health.clear()
        if self._bad_step:
            kept = self.checkpoint is not None and self.checkpoint.exists()
            raise TrainingError(
                f"step {self._bad_step}: the loss or its gradient is not finite"
                + (f"; {self.checkpoint.path} holds the last good step" if kept else "")  # type: ignore[union-attr]
                + "; look for outliers in the data, or lower loop.learning_rate and train into "
                "another folder"
            )

    def _update(
        self, data: Data, sampler: Sampler, generator: torch.Generator, rate: float
    ) -> Tensor:
        settings, rank = self.settings, self.accelerator.process_index
        words = np.random.SeedSequence([settings.seed, rank, self.step]).generate_state(
            1, np.uint64
        )
        generator.manual_seed(int(words[0] >> np.uint64(1)))
        rows = self._rows(sampler, self.step)
        batch = data.batch(rows, generator)
        data.prefetch(self._rows(sampler, self.step + 1))
        config = self.actor.config
        shape = (len(rows), *batch.actions.shape[1:])
        draws = draw(shape, config.diffusion, config.prefix, config.optimality, generator)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"
        ):  # fmt: skip
            loss: Tensor = self.network(batch, draws, generator)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, settings.grad_clip, foreach=True)
        self._health.append((loss.detach() + norm).float())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # From here to the end weights, moments, average and step are not of one moment.
        self._torn = True
        self.optimizer.step()
        with torch.no_grad():
            decay = ema_decay(settings, self.step)
            torch._foreach_lerp_(self._averaged, self.trained, 1.0 - decay)
        self.step += 1
        self._torn = False
        return loss.detach()
