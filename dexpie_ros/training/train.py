"""`train_actor`: episodes and labels in, a policy directory out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import yaml
from pydantic import Field

from dexpie_ros import config as cfg
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import Labels
from dexpie_ros.episodes.reader import require_alignment
from dexpie_ros.policy.actions import POSITION
from dexpie_ros.policy.actor import Actor
from dexpie_ros.policy.encoders import build_encoder
from dexpie_ros.policy.files import remove_leftovers
from dexpie_ros.policy.normalizer import Normalizer
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy, default_card, saved_id
from dexpie_ros.policy.presets import preset
from dexpie_ros.policy.settings import PolicyConfig, Share
from dexpie_ros.training.batches import (
    Frames,
    WindowTensors,
    cacheable,
    frozen_features,
    missing_images,
)
from dexpie_ros.training.dataset import MAX_LEAD, DatasetError, arrays_hash, episodes_hash
from dexpie_ros.training.loop import Loop, LoopConfig, Progress, Result
from dexpie_ros.training.recipes import (
    CONDITIONS,
    FAST_SHARE,
    INTERVENTION_SHARE,
    Recipe,
    TrainingSet,
    build,
)
from dexpie_ros.training.sampling import SourceWeights

CORRECTION_WEIGHT = 5.0
"""In preset `cpu`: how often a window of a correction is drawn, relative to all others. Corrections
show the way out of where the policy fails, and are a small part of the data (docs/policy.md)."""


@cfg.config
class DataConfig:
    """How windows are made of episodes."""

    human_share: Share = 1.0
    """A chunk counts as human where at least this share of its steps is (paper: all)."""
    skip_flagged: bool = True
    """Leave out steps at which a stream was out of tolerance."""
    max_lead: Annotated[float, Field(gt=0.0)] = MAX_LEAD
    """m between commanded and measured TCP: beyond it the robot did not do what it was told."""
    observation_noise: Annotated[float, Field(ge=0.0)] = 0.0
    """Standard deviation of noise on the normalised observation vector."""
    weights: SourceWeights = SourceWeights()
    """How often windows are drawn, by source."""
    fast_share: Share = FAST_SHARE
    """Recipe `hg_fast`: how many of the successful post-training episodes it learns from, the
    shortest first."""
    intervention_share: Share = INTERVENTION_SHARE
    """Recipe `dexhil`: of the loss, what the windows from the last intervention on have."""


@cfg.config
class ActorConfig:
    """A whole actor run: method, network, optimisation."""

    recipe: Recipe = "dexpie"
    policy: PolicyConfig = preset("best")
    loop: LoopConfig = LoopConfig()
    align: AlignConfig = AlignConfig()
    """How episodes are read."""
    data: DataConfig = DataConfig()
    init_from: str = ""
    """Policy directory to start from; its normaliser is kept and must cover the new windows."""


def actor_preset(
    name: str, recipe: str = "dexpie", observation: ObservationSpec | None = None
) -> ActorConfig:
    """Settings of a whole run: `paper`, `authors`, `best` or `cpu`.

    `cpu` trains in about a minute on one core; the others want a GPU.
    """
    policy = preset(name, observation)
    loops = {
        "paper": LoopConfig(),
        "authors": LoopConfig(batch_size=32, epochs=301),
        "best": LoopConfig(precision="bf16"),
        "cpu": LoopConfig(
            iterations=9000,
            batch_size=64,
            learning_rate=1e-3,
            weight_decay=1e-4,
            warmup_steps=300,
            precision="bf16",
            device="cpu",
        ),
    }
    data = DataConfig()
    if name == "best":
        data = DataConfig(weights=SourceWeights(failure=0.0))
    if name == "cpu":
        # `dexhil` has a weight of its own in the loss.
        often = 1.0 if recipe == "dexhil" else CORRECTION_WEIGHT
        weights = SourceWeights(intervention=often, failure=0.0)
        data = DataConfig(observation_noise=0.02, weights=weights)
    values = {"recipe": recipe, "policy": policy, "loop": loops[name], "data": data}
    return ActorConfig(**values)  # type: ignore[arg-type]


def train_actor(
    config: ActorConfig,
    episodes: Sequence[Episode],
    labels: Mapping[str, Labels] | Sequence[Labels] | None,
    out_dir: str | Path,
    progress: Callable[[Progress], None] | None = None,
    encoding: Callable[[int, int], None] | None = None,
) -> Path:
    """Train an actor; returns its policy directory, ``out_dir/policy``.

    ``progress`` hears of the training, ``encoding`` (done, total) of a frozen encoder at work
    before it. Images come from the episodes: give it those of the dataset cache.

    ``out_dir`` also gets the resolved run (`run.yaml`), the loss (`metrics.jsonl`) and a
    checkpoint; called again with the same settings it resumes from there. Raises DatasetError where
    the recipe finds no data, ConfigError where ``out_dir`` holds another run, EpisodeError for an
    episode that was not aligned with ``config.align``.
    """
    require_alignment(episodes, config.align)
    folder = Path(out_dir)
    config = _conditioned(config)
    settings = config.policy
    data = build(
        config.recipe,
        episodes,
        labels,
        settings.observation,
        settings.action.horizon,
        human_share=config.data.human_share,
        skip_flagged=config.data.skip_flagged,
        max_lead=config.data.max_lead,
        weights=config.data.weights,
        fast_share=config.data.fast_share,
        intervention_share=config.data.intervention_share,
    )
    lacking = missing_images(data.episodes, settings.observation.images)
    if lacking:
        raise DatasetError(
            f"{len(lacking)} episodes lack images ({lacking[0]}); train on "
            "observation.images=[] or on episodes that have them"
        )
    torch.manual_seed(config.loop.seed)
    actor = Actor(settings, build_encoder(settings, load_weights=not config.init_from))
    normalizer = _start(actor, config, data)
    run = _describe(config, data)
    _claim(folder, run)
    loop = Loop(actor, config.loop, folder)
    target = folder / "policy"
    if loop.accelerator.is_main_process:
        remove_leftovers(target)
    with contextlib.ExitStack() as stack:
        frames = features = None
        if actor.encoder is not None:
            frames = Frames(data, settings.observation.images, settings.encoder.image_size)
            stack.callback(frames.close)
            if cacheable(actor.encoder):
                features = frozen_features(
                    actor.encoder, frames, len(data.windows), loop.device, encoding
                )
        tensors = WindowTensors(
            data, normalizer, config.data.observation_noise, loop.device, frames, features
        )
        result = loop.run(tensors, progress, data.sampling)
    policy = Policy(settings, result.actor, normalizer)
    if loop.accelerator.is_main_process:
        card = default_card(policy, _card(config, data, run, result))
        policy.save(target, card, _yaml(run))
    loop.accelerator.wait_for_everyone()
    return target


def _conditioned(config: ActorConfig) -> ActorConfig:
    """The recipe decides the kind of condition, whatever the policy's settings begin with."""
    kind = CONDITIONS[config.recipe]
    policy = replace(config.policy, optimality=replace(config.policy.optimality, kind=kind))
    return replace(config, policy=policy)


def _start(actor: Actor, config: ActorConfig, data: TrainingSet) -> Normalizer:
    """Statistics of the data, or network and statistics of the policy to start from."""
    action = config.policy.action
    if not config.init_from:
        return Normalizer.fit(
            data.windows.vector,
            data.windows.largest_position,
            action.position_normalization,
            action.hand_symmetric,
            config.policy.observation.least_spread(),
        )
    before = Policy.load(config.init_from)
    _require_same_actions(before, config, data)
    wanted, found = actor.state_dict(), before.actor.state_dict()
    # The embedding of I may be new (bc -> dexpie); everything else must be the same network.
    new = {k for k in wanted if k.startswith("conditioner.optimality.") and k not in found}
    odd = [
        k for k in wanted if k not in new and (k not in found or found[k].shape != wanted[k].shape)
    ]
    if odd or before.config.observation != config.policy.observation:
        raise cfg.ConfigError(
            f"init_from {config.init_from}: another network or observation "
            f"({before.config.observation.describe()}); use the same preset and observation"
        )
    actor.load_state_dict({k: found.get(k, v) for k, v in wanted.items()})
    if actor.encoder is not None:
        actor.encoder.origin = before.encoder_origin
    return before.normalizer


def _require_same_actions(before: Policy, config: ActorConfig, data: TrainingSet) -> None:
    """ConfigError where weights and normaliser of ``before`` would mean something else here."""
    where, old, new = f"init_from {config.init_from}", before.config, config.policy
    pairs = {f"action.{k}": (getattr(old.action, k), getattr(new.action, k)) for k in _ACTION}
    pairs |= {
        f"diffusion.{k}": (getattr(old.diffusion, k), getattr(new.diffusion, k)) for k in _DIFFUSION
    }
    pairs |= {
        f"denoiser.{k}": (getattr(old.denoiser, k), getattr(new.denoiser, k)) for k in _DENOISER
    }
    for key, (had, has) in pairs.items():
        if had != has:
            raise cfg.ConfigError(
                f"{where}: was trained with {key}={had}, this run has {has}; set policy.{key}={had}"
            )
    kept = before.normalizer
    reach = float(np.abs(kept.actions(data.windows.actions)[..., POSITION]).max(initial=0.0))
    limit = new.diffusion.clip_range
    if reach > limit:
        raise cfg.ConfigError(
            f"{where}: its normaliser (scale {kept.position_scale:.4f} m) does not cover these "
            f"windows: an action lies at {reach:.2f} and sampling clips at {limit:g}; train "
            "without init_from, or lower data.max_lead where the robot did not follow"
        )


_ACTION = ("horizon", "position_normalization", "hand_symmetric")
_DIFFUSION = ("prediction", "schedule", "train_steps")
_DENOISER = ("prefix_conditioning", "depart_from_prefix", "depart_ramp", "modes")

_HASHES = {
    "data_sha256": "data",
    "labels_sha256": "labels (optimality or weight of a window)",
    "episodes_sha256": "episodes",
    "init_policy": "policy to start from",
}


def _describe(config: ActorConfig, data: TrainingSet) -> dict[str, Any]:
    pictures = bool(config.policy.observation.images)
    return {
        "config": cfg.to_dict(config),
        "provenance": cfg.provenance(),
        "data_sha256": data.windows.content_hash(),
        "labels_sha256": arrays_hash(data.optimality, data.weight),
        "episodes_sha256": episodes_hash(data.episodes, pictures),
        "labels": dict(data.labelled_by),
        "init_policy": saved_id(config.init_from) if config.init_from else "",
        "windows": len(data.windows),
        "episodes": [e.id for e in data.episodes],
    }


def _claim(folder: Path, run: dict[str, Any]) -> None:
    """Write run.yaml, or check that the run there is this one."""
    path = folder / "run.yaml"
    if not path.exists():
        cfg.write_atomic(path, _yaml(run))
        return
    before = cfg.read_yaml(path)
    # A setting that the run's version did not have yet had what is its default now.
    settings = cfg.from_dict(ActorConfig, before.get("config") or {}, f"{path}: config")
    # Where the policy to start from lies does not matter, which one it is does.
    settings = _conditioned(replace(settings, init_from=run["config"]["init_from"]))
    different = ["config"] if cfg.to_dict(settings) != run["config"] else []
    different += [what for key, what in _HASHES.items() if before.get(key, run[key]) != run[key]]
    if different:
        raise cfg.ConfigError(
            f"{folder}: holds a run with another {different[0]}; train into another folder, or "
            "delete this one"
        )


def _yaml(run: dict[str, Any]) -> str:
    return yaml.safe_dump(run, sort_keys=False, allow_unicode=True)


def _card(config: ActorConfig, data: TrainingSet, run: dict[str, Any], result: Result) -> list[str]:
    tail = result.losses[-min(100, len(result.losses)) :]
    loss = f"{float(tail.mean()):.4f}" if len(tail) else "as resumed"
    return [
        f"recipe `{config.recipe}`, {len(data.windows)} windows, seed {config.loop.seed}, "
        f"batch {config.loop.batch_size}",
        *data.summary(),
        f"data SHA-256 {run['data_sha256'][:12]}, code {run['provenance']['commit']}",
        f"loss over the last steps {loss}; {result.samples_per_s:.0f} samples/s",
        *([f"started from {config.init_from}"] if config.init_from else []),
    ]
