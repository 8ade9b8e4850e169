"""How fast the simulation is: `dexpie bench simulation`.

Speeds are given against real time, per second of processor time of one core, so that a busy machine
does not blur them; wall-clock values stand beside them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import get_args

import numpy as np

from dexpie_ros.config import from_dict
from dexpie_ros.control.types import STEP_NS
from dexpie_ros.simulation.cell import Cell, CellConfig, TaskName
from dexpie_ros.simulation.expert import Expert
from dexpie_ros.simulation.lockstep import LockstepConfig, LockstepRunner, Rollout, Task
from dexpie_ros.simulation.operator import OperatorConfig
from dexpie_ros.simulation.rendering import BACKEND
from dexpie_ros.simulation.skills import StyleConfig

_STEP_S = STEP_NS * 1e-9
TASKS: tuple[TaskName, ...] = get_args(TaskName)


def bench_simulation(quick: bool = False) -> dict[str, float | str]:
    """Speeds of rollouts, physics, scene set-up and cameras. Takes about 15 s (quick) or 4 minutes.

    ``<task>_<regime>_expert_realtime``: demonstrations through the whole lockstep loop (operator,
    tracker, glove, teleop, arbiter, limits, physics), nothing recorded; ``expert_realtime`` is that
    of task A, terminal. ``<task>_<regime>_expert_success`` is the share of them that succeeded.
    ``policy_realtime``: episodes of task A in which an untrained policy of the preset `cpu` drives,
    asynchronously.
    """
    episodes = 4 if quick else 200
    figures: dict[str, float | str] = {"opengl": BACKEND, "expert_episodes": episodes}
    for task in TASKS:
        for regime in ("terminal", "retry"):
            cell = from_dict(CellConfig, {"task": task, task: {"regime": regime}}, "benchmark")
            figures.update(_rollouts(cell, f"{task}_{regime}", episodes))
    figures["expert_realtime"] = figures["bottle_terminal_expert_realtime"]
    figures["policy_realtime"] = _policy(2 if quick else 20)
    figures.update(_physics(4 if quick else 20))
    figures.update(_scenes(2 if quick else 5))
    if BACKEND:
        figures.update(_cameras(10 if quick else 100))
    return figures


def _timed(work: Callable[[], int]) -> tuple[int, float, float]:
    """Result of ``work``, processor seconds, wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def _rollouts(cell: CellConfig, name: str, episodes: int) -> dict[str, float | str]:
    runner = LockstepRunner(LockstepConfig(cell=cell, operator=OperatorConfig(cell=cell)))
    done: list[Rollout] = []

    def work() -> int:
        done.extend(runner.run(Task("demonstration", seed)) for seed in range(episodes))
        return sum(rollout.steps for rollout in done)

    try:
        steps, cpu, wall = _timed(work)
    finally:
        runner.close()
    good = [r.success_step for r in done if r.outcome == "success" and r.success_step is not None]
    return {
        f"{name}_expert_realtime": steps * _STEP_S / cpu,
        f"{name}_expert_realtime_wall": steps * _STEP_S / wall,
        f"{name}_expert_success": len(good) / episodes,
        f"{name}_expert_median_s": statistics.median(good) * _STEP_S if good else float("nan"),
    }


def _policy(episodes: int) -> float:
    """Realtime factor of deployment; what the weights are does not matter to the time it takes."""
    import torch

    from dexpie_ros.policy.actor import Actor
    from dexpie_ros.policy.normalizer import Normalizer
    from dexpie_ros.policy.policy import Policy
    from dexpie_ros.policy.presets import preset

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = preset("cpu")
    torch.manual_seed(0)
    actor = Actor(config)
    with torch.no_grad():  # a fresh network may give parallel rot6d columns: stay near no turn
        actor.denoiser.output.bias.view(config.action.horizon, -1)[:, [3, 7]] = 2.0  # type: ignore[union-attr,index]
    size = config.observation.size
    normalizer = Normalizer(0.05, True, np.zeros(size), np.ones(size))
    policy = Policy(config, actor, normalizer, policy_id="untrained")
    runner = LockstepRunner(LockstepConfig(), policy)

    def work() -> int:
        return sum(runner.run(Task("evaluation", seed)).steps for seed in range(episodes))

    try:
        steps, cpu, _ = _timed(work)
    finally:
        runner.close()
        torch.set_num_threads(threads)
    return steps * _STEP_S / cpu


def _physics(episodes: int) -> dict[str, float | str]:
    cell = Cell(CellConfig())

    def work() -> int:
        steps = 0
        for seed in range(episodes):
            state = cell.reset(seed)
            expert = Expert(cell.task, StyleConfig(), seed, state, cell.command)
            while not state.success and not state.failure and state.scene_tick < 400:
                state = cell.step(expert.command(state))
            steps += state.scene_tick
        return steps

    steps, cpu, _ = _timed(work)
    return {"cell_realtime": steps * _STEP_S / cpu}


def _scenes(repeats: int) -> dict[str, float | str]:
    figures: dict[str, float | str] = {}
    for task in TASKS:
        cell = Cell(CellConfig(task=task))
        for stage in (cell.task.stages[0], cell.task.stages[-1]):

            def work(cell: Cell = cell, stage: str = stage) -> int:
                for seed in range(repeats):
                    cell.reset(seed, stage)
                return repeats

            resets, cpu, _ = _timed(work)
            figures[f"reset_ms_{task}_{stage}"] = 1e3 * cpu / resets
    return figures


def _cameras(frames: int) -> dict[str, float | str]:
    figures: dict[str, float | str] = {}
    for width, height in ((96, 96), (224, 224), (320, 240), (640, 480)):
        cell = Cell(CellConfig(width=width, height=height))
        cell.reset(0)
        for camera in cell.config.cameras:
            cell.render(camera)
        samples = []
        for _ in range(frames):
            start = time.perf_counter()
            for camera in cell.config.cameras:
                cell.render(camera)
            samples.append(time.perf_counter() - start)
        figures[f"render_two_ms_{width}x{height}"] = 1e3 * statistics.median(samples)
        cell.close()
    return figures
