"""Noising, masked loss and DDIM or DDPM sampling with a prefix (docs/policy.md#presets).

The schedule is diffusers': betas, alphas_cumprod and timesteps are read from its schedulers once;
the arithmetic of a step is written out here with coefficients known ahead, because the scheduler's
own bookkeeping per step would cost as much as the small network. Tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from dexpie_ros.policy.settings import DiffusionConfig, OptimalityConfig, PrefixConfig


def make_scheduler(settings: DiffusionConfig) -> DDIMScheduler:
    """The diffusers scheduler that the settings mean."""
    return DDIMScheduler(
        num_train_timesteps=settings.train_steps,
        beta_schedule=settings.schedule,
        prediction_type=settings.prediction,
        clip_sample=True,
        clip_sample_range=settings.clip_range,
        set_alpha_to_one=True,
    )


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of one training batch."""

    noise: Tensor
    """(B, H, 15)"""
    step: Tensor
    """(B,) diffusion step, 0 .. T_d - 1"""
    delay: Tensor
    """(B,) prefix length d"""
    withheld: Tensor
    """(B,) bool: I is replaced by null"""


def draw(
    shape: tuple[int, int, int],
    diffusion: DiffusionConfig,
    prefix: PrefixConfig,
    optimality: OptimalityConfig,
    generator: torch.Generator,
) -> Draws:
    """Draw for a batch of ``shape`` (B, H, 15) on the generator's device.

    d is uniform in 0 .. n; with probability 1 - keep_prob it becomes 0 (training-time RTC), and
    always where chunks are bent onto their prefix instead.
    """
    batch, device = shape[0], generator.device
    noise = torch.randn(shape, generator=generator, device=device)
    step = torch.randint(
        diffusion.train_steps, (batch,), generator=generator, device=device
    )  # fmt: skip
    delay = torch.randint(prefix.max_delay + 1, (batch,), generator=generator, device=device)
    chance = torch.rand(2, batch, generator=generator, device=device)
    keep = prefix.keep_prob if prefix.kind == "conditioned" else 0.0
    delay = torch.where(chance[0] < keep, delay, 0)
    return Draws(noise, step, delay, chance[1] < optimality.dropout)


def prefix_mask(delay: Tensor, horizon: int) -> Tensor:
    """(B,) prefix lengths -> (B, H) bool, True where the slot holds a clean action."""
    return torch.arange(horizon, device=delay.device)[None] < delay[:, None]


def masked_loss(
    error: Tensor, counts: Tensor, weight: Tensor | None = None, renormalize: bool = True
) -> Tensor:
    """Mean squared error over the slots that count.

    ``error`` (B, H, A), ``counts`` (B, H) bool (after the prefix and not padding), ``weight`` (B,).
    Renormalised: divided by the (weighted) number of counting elements; otherwise by all of them.
    """
    per_slot = error.float().square().mean(dim=-1)
    factor = counts.to(per_slot.dtype)
    if weight is not None:
        factor = factor * weight[:, None]
    if renormalize:
        return (per_slot * factor).sum() / factor.sum().clamp(min=1e-8)
    return (per_slot * factor).mean()


class Diffusion:
    """The schedule's numbers on one device."""

    def __init__(self, settings: DiffusionConfig) -> None:
        self.settings = settings
        self.alphas_cumprod: Tensor = make_scheduler(settings).alphas_cumprod.float()
        self._plans: dict[int, tuple[Tensor, list[tuple[float, float]]]] = {}

    def levels(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), each (B, 1, 1), of steps (B,)."""
        if self.alphas_cumprod.device != step.device:
            self.alphas_cumprod = self.alphas_cumprod.to(step.device)
        level = self.alphas_cumprod[step][:, None, None]
        return level.sqrt(), (1.0 - level).sqrt()

    def add_noise(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """``x_t = sqrt(abar_t) a + sqrt(1 - abar_t) eps`` (DDPM eq. 4)."""
        signal, spread = self.levels(step)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """What the network shall put out: eps, x0 or v = sqrt(abar) eps - sqrt(1 - abar) x0."""
        if self.settings.prediction == "epsilon":
            return noise
        if self.settings.prediction == "sample":
            return clean
        signal, spread = self.levels(step)
        return signal * noise - spread * clean

    def plan(self, steps: int) -> tuple[Tensor, list[tuple[float, float]]]:
        """Timesteps (S,), and (abar_t, abar_previous) of each: the DDIM plan of diffusers."""
        if steps not in self._plans:
            scheduler = make_scheduler(self.settings)
            scheduler.set_timesteps(steps)
            gap = self.settings.train_steps // steps
            table = scheduler.alphas_cumprod.double()
            final = float(scheduler.final_alpha_cumprod)
            levels = []
            for t in scheduler.timesteps.tolist():
                previous = float(table[t - gap]) if t >= gap else final
                levels.append((float(table[t]), previous))
            self._plans[steps] = (scheduler.timesteps.long(), levels)
        return self._plans[steps]

    def reverse(
        self,
        output: Tensor,
        noisy: Tensor,
        level: float,
        previous: float,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """One step: x0 clipped, eps as the network has it (diffusers' default).

        DDIM with eta = 0; with ``fresh`` noise DDPM (its eq. 7), the posterior's variance
        `fixed_small`.
        """
        signal, spread = level**0.5, (1.0 - level) ** 0.5
        if self.settings.prediction == "epsilon":
            clean, noise = (noisy - spread * output) / signal, output
        elif self.settings.prediction == "sample":
            clean, noise = output, (noisy - signal * output) / spread
        else:
            clean, noise = signal * noisy - spread * output, signal * output + spread * noisy
        clean = clean.clamp(-self.settings.clip_range, self.settings.clip_range)
        if fresh is None:
            return previous**0.5 * clean + (1.0 - previous) ** 0.5 * noise
        kept = level / previous
        to_clean = previous**0.5 * (1.0 - kept) / (1.0 - level)
        to_noisy = kept**0.5 * (1.0 - previous) / (1.0 - level)
        variance = (1.0 - previous) / (1.0 - level) * (1.0 - kept)
        return to_clean * clean + to_noisy * noisy + variance**0.5 * fresh

    def sample(
        self,
        predict: Callable[[Tensor, int], Tensor],
        noise: Tensor,
        prefix: Tensor,
        mask: Tensor,
        steps: int,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """From ``noise`` (B, H, 15) with slots under ``mask`` (B, H) overwritten by ``prefix``.

        DDPM where ``fresh`` (steps, B, H, 15) noise is given, else DDIM.

        ``predict(x, i)`` is the network's output at the i-th of ``steps``. The prefix is put in
        before every step and after the last.
        """
        where = mask.bool()[..., None]
        x = noise
        for index, (level, previous) in enumerate(self.plan(steps)[1]):
            x = torch.where(where, prefix, x)
            more = None if fresh is None else fresh[index]
            x = self.reverse(predict(x, index), x, level, previous, more)
        return torch.where(where, prefix, x)
