"""Small untrained policies for tests."""

from __future__ import annotations

import numpy as np
import torch

from dexpie_ros.policy.actor import Actor
from dexpie_ros.policy.encoders import build_encoder
from dexpie_ros.policy.normalizer import Normalizer
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.settings import (
    DenoiserConfig,
    DiffusionConfig,
    InferenceSettings,
    OptimalityConfig,
    PolicyConfig,
)

TINY_UNET = DenoiserConfig(kind="unet", channels=(16, 32), groups=4, step_embedding=16)
TINY_MLP = DenoiserConfig(kind="mlp", width=32, blocks=2, step_embedding=16, vector_embedding=16)
SPEC = ObservationSpec(parts=("tcp", "hand"))


def tiny_config(**changes) -> PolicyConfig:
    values = {
        "observation": SPEC,
        "denoiser": TINY_MLP,
        "diffusion": DiffusionConfig(prediction="sample"),
        "optimality": OptimalityConfig(size=16),
        "inference": InferenceSettings(steps=2),
    }
    return PolicyConfig(**(values | changes))


def tiny_policy(seed: int = 0, scale: float = 0.05, **changes) -> Policy:
    config = tiny_config(**changes)
    torch.manual_seed(seed)
    actor = Actor(config, build_encoder(config))
    with torch.no_grad():  # a fresh network may give parallel rot6d columns: stay near no turn
        if config.denoiser.kind == "mlp":
            bias = torch.zeros(config.action.horizon, 15)
            bias[:, [3, 7]] = 2.0
            actor.denoiser.output.bias.copy_(bias.flatten())
    size = config.observation.size
    normalizer = Normalizer(scale, True, np.zeros(size), np.ones(size))
    return Policy(config, actor, normalizer, policy_id="tiny")
