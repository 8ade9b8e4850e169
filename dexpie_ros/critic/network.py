"""The value network: features -> four-layer MLP -> logits over the value bins (section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dexpie_ros.critic.settings import CriticConfig
from dexpie_ros.critic.targets import bin_centres, expectation


class ValueNetwork(nn.Module):
    """Normalises its input itself, so that what is saved is all there is.

    Noise and dropout act in training mode only.
    """

    mean: Tensor
    scale: Tensor
    centres: Tensor

    def __init__(self, inputs: int, settings: CriticConfig) -> None:
        super().__init__()
        self.input_noise = settings.input_noise
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("centres", bin_centres(settings.bins))
        layers: list[nn.Module] = []
        width = inputs
        for _ in range(3):
            layers += [nn.Linear(width, settings.hidden), nn.Mish(), nn.Dropout(settings.dropout)]
            width = settings.hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, settings.bins))

    def fit_normaliser(self, features: Tensor) -> None:
        """Take mean and standard deviation of training features (N, D).

        A feature that (nearly) never moves gets scale 1: dividing by its spread would turn sensor
        noise into the largest input.
        """
        self.mean.copy_(features.mean(0))
        spread = features.std(0)
        self.scale.copy_(torch.where(spread > 1e-4, spread, torch.ones_like(spread)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K) of features (B, D)."""
        x = (features - self.mean) / self.scale
        if self.training and self.input_noise > 0.0:
            x = x + self.input_noise * torch.randn_like(x)
        out: Tensor = self.layers(x)
        return out

    @torch.no_grad()
    def value(self, features: Tensor) -> Tensor:
        """Expected value (B,) of features (B, D), without noise or dropout."""
        mode = self.training
        self.eval()
        values = expectation(self(features), self.centres)
        self.train(mode)
        return values
