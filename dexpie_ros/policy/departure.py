"""A chunk as the way on from the last action of its prefix (docs/notes/policy.md has the figures).

Nothing in a denoiser makes neighbouring slots agree: what it errs by at the first free slot is the
step out of the prefix, and was larger than one step of the robot. So the chunk is written as

    x0_j = b + c_j y_j,      c_j = min(j / ramp, 1) for the j-th slot behind the prefix,

b the last prefix action, and the network speaks of the departure y: some mm of way at the first
slots and ten times as much at the last become numbers of one size. Without a prefix b = 0, c = 1.

The chunk's noising x_t = s x0 + r eps (s = sqrt(abar_t), r = sqrt(1 - abar_t)) is one of y as well:

    z = (x_t - s b) / n = s' y + r' eps,   s' = c s / n,  r' = r / n,  n = sqrt(c^2 s^2 + r^2),

with more noise, because a departure c times as small drowns in noise of the same size. eps is the
same in both and has no scale of its own: a network that put it out would depart from b only as far
as it tells its input from it. So under prediction `epsilon` and `v_prediction` the network's output
F is v' = s' eps - r' y, the same question at every scale, and under `sample` it is y. All three go
back exactly, and without a division by s:

    sample        x0  = b + c F
    epsilon       eps = r' z + s' F
    v_prediction  v   = s eps - r x0,  x0 = b + c (s' z - r' F)

Training compares these with the usual targets, and sampling steps with them as usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Departure:
    """Where a batch of chunks departs from, and how far each slot may."""

    last: Tensor
    """b (B, 1, A): the last prefix action; 0 where there is no prefix."""
    share: Tensor
    """c (B, H, 1)"""
    prediction: str
    """As in `DiffusionConfig`."""

    @staticmethod
    def of(prefix: Tensor, mask: Tensor, ramp: int, prediction: str) -> Departure:
        """From ``prefix`` (B, H, A) where ``mask`` (B, H) is 1, from the first slot on."""
        length = mask.sum(dim=1).long()[:, None, None]
        index = (length - 1).clamp(min=0).expand(-1, 1, prefix.shape[2])
        last = prefix.gather(1, index) * (length > 0)
        slots = torch.arange(1, prefix.shape[1] + 1, device=mask.device)[None, :, None]
        share = ((slots - length) / ramp).clamp(1.0 / ramp, 1.0)
        return Departure(last, torch.where(length > 0, share, 1.0), prediction)

    def at(self, signal: Tensor, spread: Tensor) -> Terms:
        """What makes the network's output the prediction at noise levels s, r: (B, 1, 1) or of all."""
        last, share = self.last, self.share
        if self.prediction == "sample":
            return Terms(share, None, last)
        square = (share * signal).square() + spread.square()
        to_noise = spread / square
        output = share * signal / square.sqrt()
        if self.prediction == "epsilon":
            return Terms(output, to_noise, -to_noise * signal * last)
        # v = s eps - r (b + c (s' z - r' F)), and s^2 + r^2 = 1.
        noisy = signal * spread * (1.0 - share.square()) / square
        return Terms(share / square.sqrt(), noisy, -(noisy * signal + spread) * last)


@dataclass(frozen=True, eq=False)
class Terms:
    """``output * F + noisy * x_t + constant``."""

    output: Tensor
    noisy: Tensor | None
    constant: Tensor

    def __call__(self, output: Tensor, noisy: Tensor) -> Tensor:
        """The prediction (B, H, A) of a network that put out ``output`` for ``noisy``."""
        value = output * self.output + self.constant
        return value if self.noisy is None else value + self.noisy * noisy
