"""Distributional value targets: Gaussians over bins, cross-entropy, expectation (paper eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


def bin_centres(bins: int) -> Tensor:
    """``linspace(-1, 0, bins)``: the values (bins,) that the critic distributes mass over."""
    return torch.linspace(-1.0, 0.0, bins)


def soft_targets(returns: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """Gaussian mass over the bins, normalised: (B,) -> (B, K).

    Its mean is the true return: rounding to the bin below, as published code does, lowers every
    value by half a bin on average, and a Gaussian that the ends of the scale cut off has its mean
    further inside. So it is narrower there, three of its deviations from the end, but never
    narrower than half a bin. ``sigma`` in the critic's units.
    """
    least = min(sigma, 0.5 * float(centres[1] - centres[0]))
    to_end = torch.minimum(returns - centres[0], centres[-1] - returns)
    width = (to_end / 3.0).clamp(least, sigma)[:, None]
    distance = (centres[None, :] - returns[:, None]) / width
    return torch.softmax(-0.5 * distance**2, dim=-1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of -sum_k q_k log p_k, (B, K) and (B, K) -> ()."""
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def expectation(logits: Tensor, centres: Tensor) -> Tensor:
    """Value of a distribution over bins: (B, K) -> (B,)."""
    return (logits.softmax(-1) * centres).sum(-1)


def quantile(masses: Tensor, centres: Tensor, share: float) -> Tensor:
    """Where ``share`` of the mass lies below: masses (B, K) that sum to 1 -> (B,).

    A bin's mass is spread evenly over its width; the ends of the scale are the outermost centres.
    """
    reached = masses.cumsum(-1)
    found = torch.searchsorted(reached, reached[:, -1:] * share).clamp(max=len(centres) - 1)
    inside = masses.gather(-1, found)
    part = (share * reached[:, -1:] - (reached.gather(-1, found) - inside)) / inside
    width = centres[1] - centres[0]
    at = centres[found] + (part - 0.5) * width
    return at.squeeze(-1).clamp(centres[0], centres[-1])
