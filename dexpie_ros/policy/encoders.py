"""Image encoders of a policy."""

from __future__ import annotations

from torch import nn

from dexpie_ros.policy.settings import PolicyConfig


class Encoder(nn.Module):
    """Images (B, V, 3, S, S) in 0 .. 1 -> features (B, V * F)."""

    size: int


def build_encoder(config: PolicyConfig, load_weights: bool = True) -> Encoder | None:
    """The encoder that the settings mean, or None for a state policy."""
    if not config.observation.images:
        return None
    raise ValueError("vision encoders: see resnet")
