"""One unit of an experiment, step by step, each step only if its result is not there yet.

* ``episodes/``: demonstrations, deployments, corrections (one rosbag2 directory each)
* ``critic-best/`` and ``critic-paper/``: critics; labels lie beside the bags, tagged likewise
* ``arms/<arm>/``: training run and policy
* ``evaluation/<arm>.json``: raw rollouts on the held-out starts
* ``round-2/`` and on: the same of later rounds, without demonstrations
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dexpie_ros import config as configs
from dexpie_ros.critic import label as labelling
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.report import critic_report, to_plain
from dexpie_ros.critic.train import train_critic, usable
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.episode_file import EpisodeFile, read_episode_file
from dexpie_ros.episodes.labels import Labels, label_tags, read_labels, write_labels
from dexpie_ros.evaluation.errors import ExperimentError
from dexpie_ros.evaluation.experiments.methods import (
    actor_config,
    critic_config,
    label_config,
)
from dexpie_ros.evaluation.experiments.settings import (
    DEMONSTRATIONS,
    DEPLOYMENTS,
    ROUND_STRIDE,
    SEED_STRIDE,
    ExperimentConfig,
    Unit,
    evaluation_of,
    laboratory,
)
from dexpie_ros.evaluation.experiments.sharing import copy_beginning, first_variant
from dexpie_ros.policy.policy import Policy, saved_id
from dexpie_ros.simulation.lockstep import LockstepRunner, Rollout, Task, failed_step
from dexpie_ros.training.train import train_actor

Say = Callable[[str], None]
_ATTEMPTS = 4
"""Demonstrations that fail are recorded but not counted; so many times as wanted are tried."""


class UnitRun:
    """The steps of one unit, in one process on one core."""

    def __init__(self, settings: ExperimentConfig, unit: Unit, root: Path, say: Say) -> None:
        self.settings, self.unit, self.say = settings, unit, say
        self.root, self.folder = root, root / unit.folder
        rounds = (dataclasses.replace(unit, round=r) for r in range(1, unit.round + 1))
        self._rounds = [root / r.folder for r in rounds]
        self.setup = settings.setup(unit)
        self._offset = unit.seed * SEED_STRIDE

    def prepare(self) -> None:
        """What the arms learn from: episodes, and all labels."""
        self.collect()
        for tag in self.settings.tags_of(self.unit):
            self.label(tag)

    def collect(self) -> None:
        """Demonstrations, BC, its deployment."""
        if self.unit.round == 1:
            first = first_variant(self.settings, self.unit)
            if first != self.unit:
                copy_beginning(self.root / first.folder, self.folder)
            self._demonstrate()
            self.train("bc")
        self._deploy()

    def label(self, tag: str) -> None:
        """Critic and labels ``tag``; a critic that other labels have brought along is used again."""
        arms = self.settings.arms_of(self.unit)
        self._label(next(a for a in arms if self.settings.method(a).tag == tag))

    def train(self, arm: str) -> Path:
        """The arm's policy; BC before any deployment sees demonstrations only, as it always does."""
        target = self.folder / "arms" / arm
        if (target / "policy" / "config.yaml").is_file():
            return target / "policy"
        self.say(f"train {arm}")
        episodes = self._episodes()
        labels = self._labels(arm, episodes) if self.settings.method(arm).labels else None
        bc = self._rounds[0] / "arms" / "bc" / "policy"
        config = actor_config(self.settings, self.unit, arm, bc)
        return train_actor(config, episodes, labels, target)

    def evaluate(self, arm: str) -> list[Rollout]:
        """All held-out starts; kept whole or not at all."""
        policy = self.train(arm)
        path = self.folder / "evaluation" / f"{arm}.json"
        seeds = self.settings.starts
        loaded = Policy.load(policy)
        by_seed = {r.seed: r for r in judged(self.folder, arm)}
        if set(seeds) <= set(by_seed):
            return [by_seed[s] for s in seeds]
        self.say(f"evaluate {arm}")
        runner = LockstepRunner(evaluation_of(self.settings, self.unit, arm), loaded)
        try:
            rollouts = [runner.run(Task("evaluation", s, policy_name=arm)) for s in seeds]
        finally:
            runner.close()
        save_rollouts(path, loaded.policy_id, rollouts)
        return rollouts

    # -- data ------------------------------------------------------------------------------------
    def _demonstrate(self) -> None:
        wanted = self.setup.demonstrations
        runner: LockstepRunner | None = None
        succeeded = 0
        try:
            for k in range(wanted * _ATTEMPTS):
                if succeeded == wanted:
                    return
                seed = DEMONSTRATIONS + self._offset + k
                task = Task("demonstration", seed, episode_id=f"demonstration-{seed:09d}")
                done = self._finished(task.episode_id)
                if done is None:
                    if runner is None:
                        self.say(f"{wanted} demonstrations")
                        lab = laboratory(self.settings, self.unit, "demonstration")
                        runner = LockstepRunner(lab)
                    done = self._record(runner, task)
                succeeded += done.info.outcome == "success"
        finally:
            if runner is not None:
                runner.close()
        if succeeded < wanted:
            raise ExperimentError(
                f"{self.unit.folder}: {succeeded} of {wanted} demonstrations succeeded in "
                f"{wanted * _ATTEMPTS} attempts; lower mess or make the task easier"
            )

    def _deploy(self) -> None:
        """Post-training episodes until there are as many as wanted, corrections included."""
        wanted = self.setup.trajectories
        policy: Policy | None = None
        runner: LockstepRunner | None = None
        recorded, driven, enough = 0, 0, self._driving_wanted()
        deployed, name = self.folder / "arms" / "bc", "bc"
        if self.unit.round > 1:
            improver = self.settings.improver
            deployed = self._rounds[-2] / "arms" / improver
            name = f"{improver}-round-{self.unit.round - 1}"
        first = DEPLOYMENTS + (self.unit.round - 1) * ROUND_STRIDE + self._offset
        try:
            for k in range(wanted):
                seed = first + k
                failed, succeeded = -1, False
                for kind in self._kinds():
                    if recorded == wanted or driven >= enough or succeeded:
                        break
                    task = Task(
                        kind, seed, pair_id=f"pair-{seed:09d}", policy_name=name,
                        episode_id=f"{kind}-{seed:09d}", failed_step=failed,
                    )  # fmt: skip
                    done = self._finished(task.episode_id)
                    if done is None:
                        if runner is None:
                            self.say(f"{wanted} episodes of deployment")
                            policy = Policy.load(deployed / "policy")
                            lab = laboratory(self.settings, self.unit, "collection")
                            runner = LockstepRunner(lab, policy)
                        done = self._record(runner, task)
                    recorded += 1
                    driven += done.human_steps
                    succeeded = done.info.outcome == "success"
                    if not succeeded:
                        failed = failed_step(self.folder / "episodes" / task.episode_id)
        finally:
            if runner is not None:
                runner.close()

    def _driving_wanted(self) -> float:
        """Steps after which the operator has driven enough."""
        like = self.settings.variant(self.unit.variant).driven_like
        if not like:
            return math.inf
        other = self.root / dataclasses.replace(self.unit, variant=like).folder / "episodes"
        found = (read_episode_file(path) for path in other.iterdir())
        return sum(e.human_steps for e in found if e and e.info.kind != "demonstration")

    def _kinds(self) -> tuple[Any, ...]:
        staged = self.settings.variant(self.unit.variant).collection == "staged"
        return ("deployment", "correction") if staged else ("correction",)

    def _record(self, runner: LockstepRunner, task: Task) -> EpisodeFile:
        """Record ``task`` in the place of whatever an interruption left of it."""
        directory = self.folder / "episodes"
        shutil.rmtree(directory / task.episode_id, ignore_errors=True)
        runner.run(task, directory)
        done = self._finished(task.episode_id)
        if done is None:
            raise ExperimentError(f"{directory / task.episode_id}: recorded, but not finished")
        return done

    def _finished(self, episode_id: str) -> EpisodeFile | None:
        try:
            content = read_episode_file(self.folder / "episodes" / episode_id)
        except EpisodeError:
            return None
        return content if content is not None and content.status == "finished" else None

    def _episodes(self) -> list[Episode]:
        """What may be learned from: failed demonstrations are thrown away, as people do."""
        found = [
            episode
            for folder in self._rounds
            for episode in Collection(folder / "episodes").filter(status="finished").read()
        ]
        kept = [e for e in found if e.success or e.info.kind != "demonstration"]
        return sorted(kept, key=lambda e: e.id)

    # -- labels ----------------------------------------------------------------------------------
    def _label(self, arm: str) -> None:
        """The arm's critic and labels, unless another arm that shares them has made them."""
        method = self.settings.method(arm)
        episodes = self._episodes()
        target = self.folder / f"critic-{method.critic_name}"
        own = method.tag != method.critic_name
        report = target / (f"report-{method.tag}.json" if own else "report.json")
        critic: Critic | None = None
        config = critic_config(self.settings, self.unit, arm)
        if any(target.glob("report*.json")):
            critic = Critic.load(target)
            if critic.settings.returns != config.returns:
                raise ExperimentError(
                    f"{target}: its returns are not those that arm {arm} has in this version "
                    "(`returns` of its config.yaml; docs/notes/protocol_changes.md); go on in a new "
                    "folder, or with the version that made this one"
                )
            wanted = {e.id for e in usable(episodes, config.returns)}
            if set(critic.inputs) != wanted or critic.outdated(episodes):
                critic = None
        whole = all(self._tag(arm) in label_tags(e.path) for e in episodes)
        if critic is not None and report.is_file() and whole:
            return
        if critic is None:
            self.say(f"critic {method.critic_name}")
            for stale in target.glob("report*.json"):
                stale.unlink()
            critic = train_critic(config, episodes, target, preset=method.labels)
        labels = labelling.label(critic, episodes, label_config(self.settings, arm))
        for episode, item in zip(episodes, labels, strict=True):
            write_labels(episode.path, self._tag(arm), item)
        configs.write_json(report, to_plain(critic_report(critic, episodes, labels)))

    def _labels(self, arm: str, episodes: Sequence[Episode]) -> list[Labels]:
        critic = Critic.load(self.folder / f"critic-{self.settings.method(arm).critic_name}")
        return [read_labels(e.path, self._tag(arm), critic.hash, len(e)) for e in episodes]

    def _tag(self, arm: str) -> str:
        """Later rounds judge the earlier ones' episodes anew, beside the labels that they have."""
        later = f"-round-{self.unit.round}" if self.unit.round > 1 else ""
        return self.settings.method(arm).tag + later


def save_rollouts(path: Path, policy_id: str, rollouts: Sequence[Rollout]) -> None:
    """Raw rollouts as JSON; everything that is reported is derived from them."""
    content = {
        "policy_id": policy_id,
        "provenance": configs.provenance(),
        "rollouts": [dataclasses.asdict(r) for r in rollouts],
    }
    configs.write_json(path, content)


def load_rollouts(path: Path) -> dict[str, Any]:
    """What `save_rollouts` wrote, ``rollouts`` as values; ConfigError where it is damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["rollouts"] = [_rollout(values) for values in content["rollouts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise configs.ConfigError(
            f"{path}: no rollouts of this version ({error}); delete it to evaluate again"
        ) from None
    return content


def judged(unit_folder: Path, arm: str) -> list[Rollout]:
    """The rollouts of an arm's policy; none where there are none, or they are of another policy."""
    path = unit_folder / "evaluation" / f"{arm}.json"
    if not path.is_file():
        return []
    content = load_rollouts(path)
    now = saved_id(unit_folder / "arms" / arm / "policy")
    rollouts: list[Rollout] = content["rollouts"]
    return rollouts if now in ("", content["policy_id"]) else []


def _rollout(values: dict[str, Any]) -> Rollout:
    fixed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Rollout(**fixed)
