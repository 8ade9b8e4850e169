"""An arm's settings, whole: presets, the experiment's own numbers, the arm's overrides on top."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dexpie_ros import config as configs
from dexpie_ros.critic import label as labelling
from dexpie_ros.critic import settings as critics
from dexpie_ros.critic.label import LabelConfig
from dexpie_ros.critic.settings import CriticConfig
from dexpie_ros.evaluation.experiments.settings import (
    ExperimentConfig,
    Unit,
    evaluation_of,
    longest_steps,
)
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.training.train import ActorConfig, actor_preset


def critic_config(settings: ExperimentConfig, unit: Unit, arm: str) -> CriticConfig:
    """Of the critic behind an arm's labels."""
    method = settings.method(arm)
    steps = longest_steps(settings, unit)
    config = dataclasses.replace(critics.PRESETS[method.labels](steps), seed=unit.seed)
    if settings.critic_epochs:
        config = dataclasses.replace(config, epochs=settings.critic_epochs)
    return configs.overridden(config, method.critic, f"arms.{arm}.critic")


def label_config(settings: ExperimentConfig, arm: str) -> LabelConfig:
    """Of an arm's labels."""
    method = settings.method(arm)
    preset = labelling.PRESETS[method.labels]()
    return configs.overridden(preset, method.label, f"arms.{arm}.label")


def actor_config(
    settings: ExperimentConfig, unit: Unit, arm: str, bc: str | Path = "bc/policy"
) -> ActorConfig:
    """Of an arm's actor; ``bc`` is the policy that it may start from."""
    method = settings.method(arm)
    spec = ObservationSpec(
        parts=("tcp", "hand", "objects"), object_names=settings.setup(unit).object_names
    )
    preset = actor_preset("cpu", method.recipe, spec)
    inference = dataclasses.replace(preset.policy.inference, beta=method.beta)
    run = dataclasses.replace(
        preset,
        init_from=str(bc) if method.warm_start else "",
        policy=dataclasses.replace(preset.policy, inference=inference),
        loop=dataclasses.replace(preset.loop, iterations=settings.iterations, seed=unit.seed),
    )
    return configs.overridden(run, method.actor, f"arms.{arm}.actor")


def check_arms(settings: ExperimentConfig) -> None:
    """Make every config once, so that a mistyped override is an error before hours of work.

    Raises:
        ConfigError: it names arm and key.
    """
    for unit in settings.units():
        for arm in settings.arms_of(unit):
            actor = actor_config(settings, unit, arm)
            planned = evaluation_of(settings, unit, arm).inference
            most = actor.policy.action.horizon - planned.max_delay
            if planned.execution_horizon > most:
                raise configs.ConfigError(
                    f"arms.{arm}.execution_horizon = {planned.execution_horizon}: at most {most}, "
                    "the chunk's length less the longest delay"
                )
            if settings.method(arm).labels:
                critic_config(settings, unit, arm)
                label_config(settings, arm)
