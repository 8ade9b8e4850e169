"""The critic's config and its three presets (docs/critic.md#presets)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.critic.returns import ReturnConfig
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.policy.settings import EncoderConfig

Part = Literal["tcp", "joints", "hand", "objects", "objects_in_tcp", "hand_force"]


@config
class FeatureConfig:
    """What the critic looks at. A critic may see more than the actor: it never drives."""

    parts: tuple[Part, ...] = ("hand", "hand_force")
    """Parts of the observation vector. ``hand_force`` is what tells a full hand from an empty one.
    Where the hand is comes in as ``relations``: absolute poses name the episode that they are from,
    which helps to remember it and nothing else (docs/critic.md)."""
    object_names: tuple[str, ...] = ()
    """Objects of the simulator's state; empty: all that the episodes hold."""
    relations: bool = True
    """Add distances, near-field and pair features: what a small network cannot learn from a few
    dozen episodes but needs in order to generalise between them."""
    contact: bool = False
    """Add whether the hand touches the task's object, which only a simulator knows."""
    images: tuple[str, ...] = ()
    """Cameras; their images go through ``encoder`` once and are kept as features."""
    encoder: EncoderConfig = EncoderConfig(trainable=False)
    """Frozen; ``weights`` must name R3M's file (or ask for `random`) where there are images."""
    motion_steps: Annotated[int, Field(ge=0)] = 0
    """Add how far TCP, fingers and objects moved within this many steps; 0 adds nothing."""


@config
class CriticConfig:
    """One value network per fold, trained on the others' episodes."""

    features: FeatureConfig = FeatureConfig()
    returns: ReturnConfig = ReturnConfig()
    align: AlignConfig = AlignConfig()
    """How episodes are read, for training as for labels."""
    target_lambda: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """1 (paper): Monte-Carlo returns. Below: TD(lambda) targets, which average over episodes what
    lies far ahead."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 2
    """Epochs of Monte-Carlo targets before the first TD(lambda) ones."""
    bins: Annotated[int, Field(ge=2)] = 201
    sigma: Annotated[float, Field(gt=0.0)] = 0.02
    """Width of the Gaussian target, in the critic's units. paper: unspecified; authors: one bin."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Width of the three hidden layers."""
    input_noise: Annotated[float, Field(ge=0.0)] = 0.2
    """Standard deviation of the noise on normalised features during training."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    crossfit: Annotated[int, Field(ge=0)] = 4
    """k: every fold of episodes is labelled by the network that did not see it. 0: one network sees
    all and labels all."""
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """With ``crossfit: 0``, the share of episodes that a second network, kept for measuring only,
    does not see. 0: nothing is measured."""
    epochs: Annotated[int, Field(ge=1)] = 16
    min_batches: Annotated[int, Field(ge=1)] = 12
    """An epoch repeats the data until it has at least so many batches: a few dozen short episodes
    would otherwise end before the network has learned anything."""
    early_stopping: bool = True
    """Keep the epoch with the smallest held-out error, pooled over the folds. With TD(lambda)
    targets the first half is no candidate: values need some epochs to settle on each other."""
    patience: Annotated[int, Field(ge=1)] = 8
    """Epochs without a better one before training ends."""
    batch_size: Annotated[int, Field(ge=1)] = 512
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    seed: int = 0


def paper(max_steps: int = 400) -> CriticConfig:
    """The text of the paper: clipped returns, one network that sees everything, 250 epochs."""
    return CriticConfig(
        features=FeatureConfig(parts=("tcp", "hand", "objects"), relations=False),
        returns=ReturnConfig(scaling="clip", max_steps=max_steps),
        target_lambda=1.0,
        sigma=0.005,
        hidden=256,
        input_noise=0.0,
        dropout=0.0,
        crossfit=0,
        epochs=250,
        min_batches=1,
        early_stopping=False,
        learning_rate=1e-4,
        weight_decay=1e-6,
    )


def authors(max_steps: int = 400) -> CriticConfig:
    """The published code where it differs: joints as proprioception, decayed penalty, 201 epochs."""
    return CriticConfig(
        features=FeatureConfig(parts=("joints", "objects"), relations=False),
        returns=ReturnConfig(scaling="decay", max_steps=max_steps),
        target_lambda=1.0,
        sigma=0.005,
        hidden=256,
        input_noise=0.0,
        dropout=0.0,
        crossfit=0,
        epochs=201,
        min_batches=1,
        early_stopping=False,
        batch_size=128,
        learning_rate=1e-4,
        weight_decay=1e-6,
    )


def best(max_steps: int = 400) -> CriticConfig:
    """What this project's own ablations prefer: the defaults, learned from successes."""
    return CriticConfig(returns=ReturnConfig(max_steps=max_steps, failures="leave_out"))


PRESETS = {"paper": paper, "authors": authors, "best": best}
