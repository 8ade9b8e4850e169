"""`dexpie evaluate`: one policy on a range of starts, with the figures that a report shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from dexpie_ros import config
from dexpie_ros.config import ConfigError
from dexpie_ros.demo.settings import EVALUATION_SEEDS, DemoConfig, laboratory, seeds
from dexpie_ros.evaluation.experiments.results import trials_of
from dexpie_ros.evaluation.statistics import Summary, summarise, wilson
from dexpie_ros.policy.policy import Policy
from dexpie_ros.simulation.lockstep import Task
from dexpie_ros.simulation.parallel import run_parallel


def evaluate_policy(
    policy: Path,
    demo: Path | None = None,
    trials: int | None = None,
    first_seed: int | None = None,
    workers: int = 2,
    output: Path | None = None,
) -> Summary:
    """Run, print and (with ``output``) keep the rollouts; ``demo`` gives laboratory and starts."""
    settings = config.load(DemoConfig, demo / "demo.yaml") if demo is not None else DemoConfig()
    count = settings.evaluations if trials is None else trials
    if count < 1:
        raise ConfigError(f"--trials {count}: expected at least 1")
    numbers = seeds(EVALUATION_SEEDS, count, settings)
    if first_seed is not None:
        numbers = list(range(first_seed, first_seed + count))
    policy_id = Policy.load(policy).policy_id
    tasks = [Task("evaluation", seed) for seed in numbers]
    rollouts = run_parallel(laboratory(settings), tasks, None, policy, workers)
    summary = summarise(trials_of(rollouts), settings.limit_s)
    contact = wilson(sum(r.contact for r in rollouts), len(rollouts))
    if output is not None:
        values = {
            "policy_id": policy_id,
            "provenance": config.provenance(),
            "seeds": numbers,
            "rollouts": [dataclasses.asdict(rollout) for rollout in rollouts],
        }
        config.write_json(output, values)
    median = f"{summary.median_s:.1f} s" if summary.successes else "-"
    Console().print(
        f"policy {policy_id}, starts {numbers[0]}..{numbers[-1]}: {summary.successes} of "
        f"{summary.trials} = {summary.success.value:.1%} "
        f"({summary.success.low:.1%} .. {summary.success.high:.1%}), median {median}, "
        f"restricted mean {summary.restricted_mean_s.value:.1f} s of {settings.limit_s:g} s, "
        f"contact entry {contact.value:.1%} ({contact.low:.1%} .. {contact.high:.1%})"
    )
    return summary
