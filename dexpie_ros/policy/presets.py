"""The named choices: `paper`, `authors`, `best` and `cpu` (docs/policy.md#presets).

`paper` follows the text of the paper, `authors` its published code where that differs, `best` is
the default, and `cpu` is the state-based actor that trains and runs on one core.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.settings import (
    ActionConfig,
    DenoiserConfig,
    DiffusionConfig,
    EncoderConfig,
    InferenceSettings,
    OptimalityConfig,
    PolicyConfig,
    PrefixConfig,
)

PresetName = Literal["paper", "authors", "best", "cpu"]
PRESET_NAMES: tuple[str, ...] = get_args(PresetName)
CAMERAS = ("front", "wrist")


def preset(name: str, observation: ObservationSpec | None = None) -> PolicyConfig:
    """The named policy settings, for another observation where one is given.

    Raises ValueError for an unknown name.
    """
    if name not in _PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose from {', '.join(PRESET_NAMES)}")
    settings = _PRESETS[name]
    return settings if observation is None else replace(settings, observation=observation)


_PAPER = PolicyConfig(
    preset="paper",
    observation=ObservationSpec(parts=("tcp", "hand"), images=CAMERAS),
    encoder=EncoderConfig(shared=False, trainable=False),
    denoiser=DenoiserConfig(prefix_conditioning=False),
)

_AUTHORS = PolicyConfig(
    preset="authors",
    observation=ObservationSpec(parts=("joints",), images=CAMERAS),
    action=ActionConfig(horizon=28, position_normalization="identity", hand_symmetric=False),
    encoder=EncoderConfig(
        shared=True, trainable=True, random_crop=0.05, color_jitter=(0.3, 0.4, 0.5, 0.08)
    ),
    denoiser=DenoiserConfig(prefix_conditioning=False),
    diffusion=DiffusionConfig(train_steps=50),
    prefix=PrefixConfig(keep_prob=0.1, renormalize=False),
    optimality=OptimalityConfig(embedding="raw", size=128),
    inference=InferenceSettings(beta=2.0),
)

_BEST = PolicyConfig(
    preset="best",
    observation=ObservationSpec(parts=("tcp", "hand"), images=CAMERAS),
    encoder=EncoderConfig(random_crop=0.05, color_jitter=(0.3, 0.4, 0.5, 0.08)),
    denoiser=DenoiserConfig(vector_embedding=128),
)

_CPU = PolicyConfig(
    preset="cpu",
    observation=ObservationSpec(parts=("tcp", "hand")),
    denoiser=DenoiserConfig(
        kind="mlp",
        modes=6,
        step_embedding=64,
        vector_embedding=128,
        prefix_conditioning=False,
    ),
    diffusion=DiffusionConfig(prediction="sample"),
    prefix=PrefixConfig(kind="bent"),
    # With sinusoids of 100 I every narrow band of I is a condition of its own, with few windows.
    optimality=OptimalityConfig(scale=3.0),
    # Without noise there is no distribution that guidance could sharpen: it would only move the
    # chunk on, beyond all that was learned.
    inference=InferenceSettings(beta=1.0, noise=0.0),
)

_PRESETS = {"paper": _PAPER, "authors": _AUTHORS, "best": _BEST, "cpu": _CPU}
