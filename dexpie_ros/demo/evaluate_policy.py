"""`dexpie evaluate`: one policy on a range of starts, with the figures that a report shows.

The laboratory is that of the demo (task A), or with ``--task`` the one in which the experiments
evaluate a task, with their limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dexpie_ros import config
from dexpie_ros.config import ConfigError
from dexpie_ros.demo.settings import EVALUATION_SEEDS, DemoConfig, laboratory, seeds
from dexpie_ros.evaluation.experiments.results import trials_of
from dexpie_ros.evaluation.experiments.settings import (
    TASKS,
    ExperimentConfig,
    Regime,
    TaskKey,
    Unit,
)
from dexpie_ros.evaluation.experiments.settings import laboratory as task_laboratory
from dexpie_ros.evaluation.statistics import Summary, summarise, wilson
from dexpie_ros.policy.policy import Policy
from dexpie_ros.simulation.cell import CellConfig
from dexpie_ros.simulation.lockstep import Task
from dexpie_ros.simulation.parallel import run_parallel


def evaluate_policy(
    policy: Path,
    demo: Path | None = None,
    trials: int | None = None,
    first_seed: int | None = None,
    workers: int = 2,
    output: Path | None = None,
    cell: tuple[TaskKey, Regime] | None = None,
    overrides: Sequence[str] = (),
) -> Summary:
    """Run, print and (with ``output``) keep the rollouts; ``demo`` gives laboratory and starts,
    ``cell`` a task of the experiments and its regime, ``overrides`` other settings of the inference
    than the policy was saved with (``beta=1``).
    """
    settings = config.load(DemoConfig, demo / "demo.yaml") if demo is not None else DemoConfig()
    lab, limit_s = laboratory(settings), settings.limit_s
    if cell is not None:
        lab = task_laboratory(ExperimentConfig(), Unit(*cell, "main", 0), "evaluation")
        limit_s = TASKS[cell].limit_s
    count = settings.evaluations if trials is None else trials
    if count < 1:
        raise ConfigError(f"--trials {count}: expected at least 1")
    numbers = seeds(EVALUATION_SEEDS, count, settings)
    if first_seed is not None:
        numbers = list(range(first_seed, first_seed + count))
    loaded = Policy.load(policy)
    policy_id, saved = loaded.policy_id, loaded.config.inference
    sampling = config.overridden(saved, overrides, f"inference of {policy}")
    lab = dataclasses.replace(lab, sampling=sampling)
    tasks = [Task("evaluation", seed) for seed in numbers]
    rollouts = run_parallel(lab, tasks, None, policy, workers)
    summary = summarise(trials_of(rollouts), limit_s)
    contact = wilson(sum(r.contact for r in rollouts), len(rollouts))
    if output is not None:
        values = {
            "policy_id": policy_id,
            "provenance": config.provenance(),
            "cell": config.to_dict(lab.cell),
            "limit_s": limit_s,
            "inference": config.to_dict(sampling),
            "seeds": numbers,
            "rollouts": [dataclasses.asdict(rollout) for rollout in rollouts],
        }
        config.write_json(output, values)
    median = f"{summary.median_s:.1f} s" if summary.successes else "-"
    Console().print(
        f"policy {', '.join((policy_id, *overrides))}, {_scene(lab.cell)}, "
        f"starts {numbers[0]}..{numbers[-1]}: {summary.successes} of {summary.trials} = {summary.success.value:.1%} "
        f"({summary.success.low:.1%} .. {summary.success.high:.1%}), median {median}, "
        f"restricted mean {summary.restricted_mean_s.value:.1f} s of {limit_s:g} s, "
        f"contact entry {contact.value:.1%} ({contact.low:.1%} .. {contact.high:.1%})"
    )
    return summary


def _scene(cell: CellConfig) -> str:
    """For instance ``task bottle (retry)``."""
    return f"task {cell.task} ({getattr(cell, cell.task).regime})"
