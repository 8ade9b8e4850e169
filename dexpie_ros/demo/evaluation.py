"""The same held-out starts for every policy: in lockstep, and some of them on the live graph."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from dexpie_ros.config import write_json
from dexpie_ros.control.types import STEP_NS
from dexpie_ros.demo.collection import Bar, finished
from dexpie_ros.demo.live import live_graph, read_scene, run_live
from dexpie_ros.demo.settings import EVALUATION_SEEDS, DemoConfig, laboratory, seeds
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.evaluation.statistics import Trial
from dexpie_ros.policy.policy import Policy
from dexpie_ros.simulation.lockstep import Rollout, Task
from dexpie_ros.simulation.parallel import run_parallel

STEP_S = STEP_NS * 1e-9


def evaluate(
    settings: DemoConfig, folder: Path, name: str, policy: Path, bar: Bar
) -> list[Rollout]:
    """All held-out starts in lockstep; kept in ``evaluation/<name>.json``."""
    numbers = seeds(EVALUATION_SEEDS, settings.evaluations, settings)
    path = folder / "evaluation" / f"{name}.json"
    identity = Policy.load(policy).policy_id
    if path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["policy_id"] == identity and saved["seeds"] == numbers:
            return [_rollout(values) for values in saved["rollouts"]]
    tasks = [Task("evaluation", seed, policy_name=name) for seed in numbers]
    with bar(f"evaluation, {name}", len(tasks)) as advance:
        rollouts = run_parallel(
            laboratory(settings), tasks, None, policy, settings.workers, lambda _: advance()
        )
    content = {
        "policy_id": identity,
        "seeds": numbers,
        "rollouts": [dataclasses.asdict(rollout) for rollout in rollouts],
    }
    write_json(path, content)
    return rollouts


def evaluate_live(
    settings: DemoConfig, folder: Path, name: str, policy: Path, bar: Bar
) -> list[Path]:
    """The first of the held-out starts on the live graph; returns the bags."""
    numbers = seeds(EVALUATION_SEEDS, settings.live_evaluations, settings)
    return _live(settings, folder, name, policy, numbers, "live", bar)


def evaluate_realtime(
    settings: DemoConfig, folder: Path, name: str, policy: Path, bar: Bar
) -> list[Path]:
    """A few starts in real time, without lockstep: where jitter and latency can be measured."""
    numbers = seeds(EVALUATION_SEEDS, settings.realtime_evaluations, settings)
    return _live(settings, folder, name, policy, numbers, "realtime", bar)


def _live(
    settings: DemoConfig,
    folder: Path,
    name: str,
    policy: Path,
    numbers: Sequence[int],
    how: str,
    bar: Bar,
) -> list[Path]:
    tasks = [
        Task("evaluation", seed, episode_id=f"{how}-{name}-{seed:07d}", policy_name=name)
        for seed in numbers
    ]
    missing = [task for task in tasks if finished(folder, task.episode_id) is None]
    if missing:
        with bar(f"evaluation, {name}, {how}", len(missing)) as advance:
            with live_graph(folder, settings, policy, realtime=how == "realtime") as client:
                for task in missing:
                    shutil.rmtree(folder / "episodes" / task.episode_id, ignore_errors=True)
                    run_live(client, task, str(policy))
                    advance()
    return [folder / "episodes" / task.episode_id for task in tasks]


def live_trials(directories: Sequence[Path]) -> tuple[Trial, ...]:
    """The same from bags of the live graph."""
    trials = []
    for directory in directories:
        info, scene = read_episode(directory).info, read_scene(directory)
        steps = scene.steps if scene.success_step is None else scene.success_step
        trials.append(
            Trial(
                start=str(info.seed),
                success=info.outcome == "success",
                time_s=steps * STEP_S,
                cause=info.cause,
                contact=scene.contact,
            )
        )
    return tuple(trials)


def _rollout(values: dict[str, object]) -> Rollout:
    tuples = ("latencies_ms", "seams_m", "notes")
    fixed = {k: tuple(v) if k in tuples else v for k, v in values.items()}  # type: ignore[arg-type]
    return Rollout(**fixed)  # type: ignore[arg-type]
