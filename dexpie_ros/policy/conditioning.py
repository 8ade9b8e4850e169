"""The global condition: diffusion step, observation and optimality (docs/policy.md).

The optimality I in [0, 1] enters through sinusoids of ``scale * I`` and an MLP: the raw value would
hardly move anything but "present or absent" (distance e(0.6) - e(0.8) = 0.4, null - e(1) = 8).
Every kind, also `none`, occupies the same slot of the condition, so that all methods share one
network and one can start from another's weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dexpie_ros.policy.actions import ACTION_DIM
from dexpie_ros.policy.settings import DenoiserConfig, OptimalityConfig

PREFIX_INPUTS = 2 * ACTION_DIM + 1


def prefix_inputs(prefix: Tensor, mask: Tensor) -> Tensor:
    """Local inputs (B, H, 31) of a prefix (B, H, 15) under mask (B, H): [mask, mask * a, change].

    The change from slot to slot, times H, says what the positions hardly do: one step is a few
    hundredths of their range, and a network that must find it as a difference of two inputs takes
    several times as long to go on smoothly from the prefix.
    """
    both = (mask[:, 1:] * mask[:, :-1])[..., None]
    change = (prefix[:, 1:] - prefix[:, :-1]) * both * prefix.shape[1]
    change = torch.cat([torch.zeros_like(prefix[:, :1]), change], dim=1)
    return torch.cat([mask[..., None], prefix * mask[..., None], change], dim=-1)


def sinusoid(values: Tensor, size: int) -> Tensor:
    """Values (B,) -> (B, size): sines, then cosines, frequencies 10000^(-i / (size/2 - 1))."""
    half = size // 2
    exponent = torch.arange(half, device=values.device, dtype=torch.float32) / max(half - 1, 1)
    angle = values.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)[None]
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class StepEmbedding(nn.Module):
    """Diffusion step (B,) -> (B, size)."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.mlp = nn.Sequential(nn.Linear(size, hidden), nn.Mish(), nn.Linear(hidden, size))

    def forward(self, step: Tensor) -> Tensor:
        out: Tensor = self.mlp(sinusoid(step, self.size))
        return out


class OptimalityEmbedding(nn.Module):
    """I (B,) in [0, 1] and where it is withheld (B,) bool -> (B, size).

    `continuous` and `scaled`: sinusoids of scale * I, an MLP, a learned null; `raw`: sinusoids of
    I and zeros, as the authors have it; `binary`: a table {0, 1, null} with I >= 0.5 as 1; `none`:
    always null.
    """

    def __init__(self, settings: OptimalityConfig) -> None:
        super().__init__()
        self.settings = settings
        size = settings.size
        self.null = nn.Parameter(torch.zeros(size), requires_grad=not self._raw)
        if settings.kind == "binary":
            self.table = nn.Embedding(2, size)
        elif settings.kind == "continuous" and not self._raw:
            self.mlp = nn.Sequential(
                nn.Linear(size, 2 * size), nn.Mish(), nn.Linear(2 * size, size)
            )

    @property
    def _raw(self) -> bool:
        return self.settings.kind == "continuous" and self.settings.embedding == "raw"

    def forward(self, optimality: Tensor, withheld: Tensor) -> Tensor:
        null = self.null.expand(len(optimality), -1)
        if self.settings.kind == "none":
            return null
        if self.settings.kind == "binary":
            value = self.table((optimality >= 0.5).long())
        elif self._raw:
            value = sinusoid(optimality, self.settings.size)
        else:
            value = self.mlp(sinusoid(optimality * self.settings.scale, self.settings.size))
        return torch.where(withheld[:, None], null.to(value.dtype), value)


class Conditioner(nn.Module):
    """Step (B,), observation features (B, F), I (B,), withheld (B,) -> condition (B, size)."""

    def __init__(
        self, denoiser: DenoiserConfig, optimality: OptimalityConfig, feature_size: int
    ) -> None:
        super().__init__()
        width = denoiser.vector_embedding
        self.step = StepEmbedding(denoiser.step_embedding, 4 * denoiser.step_embedding)
        # The same seed shall give every method the same network: what only some have must not draw
        # from what all others' weights are drawn from.
        with torch.random.fork_rng(devices=[]):
            self.optimality = OptimalityEmbedding(optimality)
        self.features: nn.Module = nn.Identity()
        if width:
            self.features = nn.Sequential(
                nn.Linear(feature_size, width), nn.Mish(), nn.Linear(width, width)
            )
        self.size = denoiser.step_embedding + (width or feature_size) + optimality.size

    def forward(
        self, step: Tensor, features: Tensor, optimality: Tensor, withheld: Tensor
    ) -> Tensor:
        parts = [self.step(step), self.features(features), self.optimality(optimality, withheld)]
        return torch.cat([part.to(parts[0].dtype) for part in parts], dim=-1)

    def all_steps(
        self, steps: Tensor, features: Tensor, optimality: Tensor, withheld: Tensor
    ) -> Tensor:
        """Conditions (S, B, size) of all denoising steps (S,) at once; the rest is computed once."""
        batch = len(features)
        fixed = torch.cat([self.features(features), self.optimality(optimality, withheld)], dim=-1)
        time = self.step(steps)[:, None].expand(-1, batch, -1)
        return torch.cat([time, fixed[None].expand(len(steps), -1, -1)], dim=-1)
