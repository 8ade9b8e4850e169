"""From bags to policies: BC, critic, labels, DexPIE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dexpie_ros.critic import label as labelling
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.settings import best
from dexpie_ros.critic.train import train_critic, usable
from dexpie_ros.demo.collection import Bar
from dexpie_ros.demo.settings import DemoConfig, laboratory
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import Labels, current_labels, write_labels
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.simulation.operator import longest_episode, with_role
from dexpie_ros.training.loop import Progress
from dexpie_ros.training.train import ActorConfig, actor_preset, train_actor

TAG = "demo"
"""Of the label sidecars."""

LABELS = labelling.best()
"""The demonstrator pauses, misses and tries again, so the critic scores demonstrations too;
corrections are optimal where they succeeded."""


def actor_settings(settings: DemoConfig, recipe: str) -> ActorConfig:
    """The cpu preset; every recipe gets the same network, budget and seed."""
    spec = ObservationSpec(parts=("tcp", "hand", "objects"), object_names=("bottle", "platform"))
    preset = actor_preset("cpu", recipe, spec)
    inference = replace(preset.policy.inference, beta=settings.beta)
    return replace(
        preset,
        policy=replace(preset.policy, inference=inference),
        loop=replace(preset.loop, iterations=settings.iterations, seed=settings.seed),
    )


def learn_actor(
    settings: DemoConfig,
    folder: Path,
    recipe: str,
    episodes: Sequence[Episode],
    labels: Sequence[Labels] | None,
    bar: Bar,
) -> Path:
    """Train or find the policy of a recipe; returns its directory."""
    torch.set_num_threads(1)
    target = folder / "policies" / recipe
    if (target / "policy" / "config.yaml").is_file():
        return target / "policy"
    seen = 0
    with bar(f"actor, {recipe}", settings.iterations) as advance:

        def report(progress: Progress) -> None:
            nonlocal seen
            while seen < progress.step:
                advance()
                seen += 1

        return train_actor(actor_settings(settings, recipe), episodes, labels, target, report)


def learn_critic(
    settings: DemoConfig, folder: Path, episodes: Sequence[Episode], bar: Bar
) -> Critic:
    """Train or load the critic of these episodes."""
    torch.set_num_threads(1)
    target = folder / "critic"
    # who takes over at the limit has as long again for the correction
    longest = longest_episode(with_role(laboratory(settings).operator, "supervise"))
    config = replace(best(max_steps=longest), epochs=settings.critic_epochs, seed=settings.seed)
    if (target / "metrics.json").is_file():
        critic = Critic.load(target)
        wanted = {e.id for e in usable(episodes, config.returns)}
        same = critic.settings.returns == config.returns and set(critic.inputs) == wanted
        if same and not critic.outdated(episodes):
            return critic
    done_before = 0
    with bar("critic", 1000) as advance:

        def report(done: int, total: int, message: str) -> None:
            nonlocal done_before
            now = round(1000 * done / max(total, 1))
            while done_before < now:
                advance()
                done_before += 1

        return train_critic(config, episodes, target, report)


def label_episodes(critic: Critic, episodes: Sequence[Episode]) -> list[Labels]:
    """Value, advantage and optimality beside every bag; read where they are there already."""
    found = []
    for episode in episodes:
        try:
            found.append(current_labels(episode, TAG, critic.hash))
        except ValueError:
            break
    if len(found) == len(episodes):
        return found
    labels = labelling.label(critic, episodes, LABELS)
    for episode, item in zip(episodes, labels, strict=True):
        write_labels(episode.path, TAG, item)
    return labels
