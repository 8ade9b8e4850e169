"""A residual MLP over the whole chunk: what one CPU core can train and run (preset `cpu`).

The condition enters the input layer and every block through one projection, so that for sampling
all steps are projected ahead in one product. A step-dependent skip from input to output lets the
noise of an epsilon target pass a trunk that is narrower than the chunk.

What such a network errs by differs from slot to slot, and neighbouring actions jerk more than the
demonstrations do. The next chunk sees that as its prefix, a motion that nobody ever made, and what
it goes on with is worse. With `modes` the output is made of a few smooth sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dexpie_ros.policy.actions import ACTION_DIM
from dexpie_ros.policy.conditioning import PREFIX_INPUTS, prefix_inputs
from dexpie_ros.policy.settings import DenoiserConfig


def smooth_modes(slots: int, count: int) -> Tensor:
    """Projection (H, H) onto the ``count`` smoothest sequences of ``slots`` values.

    Ordered by the sum of squares of their second differences (Demmler and Reinsch 1975): constants,
    straight lines, then waves of growing frequency that are free at both ends.
    """
    bend = torch.diff(torch.eye(slots, dtype=torch.float64), n=2, dim=0)
    modes = torch.linalg.eigh(bend.T @ bend).eigenvectors[:, :count]
    return (modes @ modes.T).float()


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        inner = F.silu(self.expand(self.norm(hidden)) + condition)
        return hidden + self.project(inner)


class MLPDenoiser(nn.Module):
    """Noisy chunk (B, H, 15) -> prediction (B, H, 15).

    Three calls share the work: :meth:`local` once per chunk, :meth:`modulations` once for all
    steps, :meth:`denoise` per step.
    """

    def __init__(self, settings: DenoiserConfig, horizon: int, condition_size: int) -> None:
        super().__init__()
        self.horizon, self.width, self.blocks_count = horizon, settings.width, settings.blocks
        flat, width = horizon * ACTION_DIM, settings.width
        self.input = nn.Linear(flat, width)
        self.condition = nn.Linear(condition_size, width * (1 + settings.blocks) + 1)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(settings.blocks))
        self.output = nn.Linear(width, flat)
        self.smoother: Tensor | None
        smoother = smooth_modes(horizon, settings.modes) if settings.modes else None
        self.register_buffer("smoother", smoother, persistent=False)
        self.prefix: nn.Linear | None = None
        if settings.prefix_conditioning:
            self.prefix = nn.Linear(horizon * PREFIX_INPUTS, width, bias=False)
            # Zero: the network starts equal to plain overwriting of the prefix.
            nn.init.zeros_(self.prefix.weight)
        with torch.no_grad():  # no skip at the start: right for x0, learned for epsilon
            self.condition.weight[-1].zero_()
            self.condition.bias[-1].zero_()

    def local(self, prefix: Tensor, mask: Tensor) -> list[Tensor]:
        """What the prefix (B, H, 15) under mask (B, H) adds to the input: [] or (B, width)."""
        if self.prefix is None:
            return []
        return [self.prefix(prefix_inputs(prefix, mask).flatten(1))]

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """Condition (B, C) -> what enters the input, each block, and the skip."""
        sizes = [self.width] * (1 + self.blocks_count) + [1]
        return list(self.condition(condition).split(sizes, dim=-1))

    def denoise(self, noisy: Tensor, local: list[Tensor], modulations: list[Tensor]) -> Tensor:
        flat = noisy.flatten(1)
        hidden = self.input(flat) + modulations[0]
        if local:
            hidden = hidden + local[0]
        for block, term in zip(self.blocks, modulations[1:-1], strict=True):
            hidden = block(hidden, term)
        out = self.output(hidden) + modulations[-1] * flat
        chunk = out.view(-1, self.horizon, ACTION_DIM)
        return chunk if self.smoother is None else self.smoother @ chunk

    def forward(self, noisy: Tensor, prefix: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        """``noisy``, ``prefix`` (B, H, 15), ``mask`` (B, H) float, ``condition`` (B, C)."""
        return self.denoise(noisy, self.local(prefix, mask), self.modulations(condition))
