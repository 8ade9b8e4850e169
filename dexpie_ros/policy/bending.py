"""A chunk bent onto its prefix, of which the network knows nothing (figures: docs/notes/policy.md).

A network that is trained with prefixes learns that what goes on goes on: a hand that hesitates
hesitates, whatever the observation says. In its data that is right; deployed, the prefix is its own
motion. Without it the network says what the observation asks for, and the chunk is made continuous:

    x_j <- x_j + w_j (b - x_0),   w_j = (1 + cos(pi j / R)) / 2,   j = 1 .. R - 1 behind the prefix,

b the last prefix action, x_0 the network's own action in that slot. With R = 12 the first step is
its own but for 2 % of the difference, which comes in by at most 13 % a step. Positions, openings
and rot6d bend alike; rot6d is orthonormalised when decoded.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bent(chunk: Tensor, prefix: Tensor, mask: Tensor, slots: int) -> Tensor:
    """Chunks (B, H, A) that go on from ``prefix`` (B, H, A) where ``mask`` (B, H) is 1.

    ``mask`` covers the first slots or none (then the chunk stays as it is); ``slots`` is R.
    """
    length = mask.sum(dim=1).long()[:, None]  # (B, 1)
    known = mask[..., None] > 0
    last = (length - 1).clamp(min=0)[..., None].expand(-1, 1, chunk.shape[2])
    difference = (prefix - chunk).gather(1, last)
    numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    behind = numbers - length  # j, (B, H)
    share = (1.0 + torch.cos(torch.pi * (behind / slots).clamp(max=1.0))) / 2.0 * (length > 0)
    return (chunk + share[..., None] * difference).where(~known, prefix)
