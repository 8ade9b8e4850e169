"""Conditional 1D U-Net over the chunk (reference: Diffusion Policy).

Two defects of the widely copied implementation are absent: the full-resolution skip is used, and
the local (prefix) conditioning enters at the first down level and again before the last
convolution, both at full length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dexpie_ros.policy.actions import ACTION_DIM
from dexpie_ros.policy.conditioning import PREFIX_INPUTS, prefix_inputs
from dexpie_ros.policy.settings import DenoiserConfig


class _ConvBlock(nn.Module):
    """Conv1d, GroupNorm, Mish at constant length."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(self.norm(self.conv(x)))


class _FilmBlock(nn.Module):
    """Two convolutions, scale and shift from the condition after the first, residual."""

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = _ConvBlock(inputs, outputs, kernel, groups)
        self.second = _ConvBlock(outputs, outputs, kernel, groups)
        self.film = nn.Linear(condition, 2 * outputs)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        scale, shift = film[..., None].chunk(2, dim=1)
        hidden = self.first(x) * (1 + scale) + shift
        out: Tensor = self.second(hidden) + self.skip(x)
        return out


def _pair(blocks: nn.Module) -> tuple[_FilmBlock, _FilmBlock]:
    """The two blocks of a level (nn.ModuleList forgets what it holds)."""
    first, second = blocks.children()
    assert isinstance(first, _FilmBlock)
    assert isinstance(second, _FilmBlock)
    return first, second


class UNetDenoiser(nn.Module):
    """Noisy chunk (B, H, 15) -> prediction (B, H, 15); H divides by 2^(levels-1).

    The calls are those of :class:`~dexpie_ros.policy.mlp.MLPDenoiser`.
    """

    def __init__(self, settings: DenoiserConfig, horizon: int, condition_size: int) -> None:
        super().__init__()
        widths = settings.channels
        self.horizon = horizon

        def block(inputs: int, outputs: int) -> _FilmBlock:
            return _FilmBlock(inputs, outputs, condition_size, settings.kernel, settings.groups)

        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        previous = ACTION_DIM
        for width in widths:
            self.down.append(nn.ModuleList([block(previous, width), block(width, width)]))
            previous = width
        for width in widths[:-1]:
            self.shrink.append(nn.Conv1d(width, width, 3, stride=2, padding=1))
        self.middle = nn.ModuleList([block(previous, previous), block(previous, previous)])
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level in reversed(range(len(widths))):
            # Every level's skip is taken, the full-resolution one too.
            goal = widths[max(level - 1, 0)]
            self.up.append(nn.ModuleList([block(2 * widths[level], goal), block(goal, goal)]))
            if level:
                self.grow.append(nn.ConvTranspose1d(goal, goal, 4, stride=2, padding=1))
        self.last = _ConvBlock(widths[0], widths[0], settings.kernel, settings.groups)
        self.output = nn.Conv1d(widths[0], ACTION_DIM, 1)
        self.prefix: nn.ModuleList | None = None
        if settings.prefix_conditioning:
            self.prefix = nn.ModuleList(
                nn.Conv1d(PREFIX_INPUTS, widths[0], 3, padding=1) for _ in range(2)
            )
            for layer in self.prefix.parameters():
                # Zero: the network starts equal to plain overwriting of the prefix.
                nn.init.zeros_(layer)

    @property
    def film_layers(self) -> list[nn.Linear]:
        """The FiLM projections in the order in which :meth:`denoise` uses them."""
        groups = [*self.down, self.middle, *self.up]
        return [block.film for group in groups for block in _pair(group)]

    def local(self, prefix: Tensor, mask: Tensor) -> list[Tensor]:
        """Prefix (B, H, 15) under mask (B, H) -> [] or two terms (B, C0, H), for entry and exit."""
        if self.prefix is None:
            return []
        inputs = prefix_inputs(prefix, mask).transpose(1, 2)
        return [layer(inputs) for layer in self.prefix]

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """Condition (B, C) -> scale and shift (B, 2 * channels) of every block."""
        activated = F.mish(condition)
        return [layer(activated) for layer in self.film_layers]

    def denoise(self, noisy: Tensor, local: list[Tensor], modulations: list[Tensor]) -> Tensor:
        film = iter(modulations)
        x = noisy.transpose(1, 2)
        skips: list[Tensor] = []
        for level, (first, second) in enumerate(map(_pair, self.down)):
            x = first(x, next(film))
            if level == 0 and local:
                x = x + local[0]
            x = second(x, next(film))
            skips.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
        for block in self.middle:
            x = block(x, next(film))
        for level, (first, second) in enumerate(map(_pair, self.up)):
            x = first(torch.cat([x, skips.pop()], dim=1), next(film))
            x = second(x, next(film))
            if level < len(self.grow):
                x = self.grow[level](x)
        if local:
            x = x + local[1]
        out: Tensor = self.output(self.last(x))
        return out.transpose(1, 2)

    def forward(self, noisy: Tensor, prefix: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        """``noisy``, ``prefix`` (B, H, 15), ``mask`` (B, H) float, ``condition`` (B, C)."""
        return self.denoise(noisy, self.local(prefix, mask), self.modulations(condition))
