"""What the demo does and how much of it: one config, two sizes, seeds that never meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.simulation.cell import CellConfig
from dexpie_ros.simulation.disturbances import DisturbanceConfig
from dexpie_ros.simulation.lockstep import LockstepConfig
from dexpie_ros.simulation.operator import OperatorConfig
from dexpie_ros.simulation.tasks.bottle import BottleConfig

Count = Annotated[int, Field(ge=1)]

DEMONSTRATION_SEEDS, DEPLOYMENT_SEEDS, EVALUATION_SEEDS = 1_000, 20_000, 900_000
"""First seed of each purpose: initial states of the evaluation are in no data."""


@config
class DemoConfig:
    """Size of a run. The defaults are the demo; :func:`quick` is the smallest that goes all the way."""

    seed: Annotated[int, Field(ge=0, lt=100)] = 0
    """Shifts every other seed: another person, other scenes, other networks."""
    task: Literal["bottle"] = "bottle"
    """Settings, limits and report of the demo are this task's; the experiments have all."""
    live_demonstrations: Count = 5
    """Recorded by teleoperation through the live graph."""
    lockstep_demonstrations: int = 40
    """Made by the lockstep runner with the same control, operator and recording code."""
    live_starts: Count = 4
    """Deployments on the live graph; a failed one is followed by a watched one of the same start."""
    live_corrections: int = 2
    """Go on deploying live until so many starts were corrected there (or all starts are used)."""
    lockstep_starts: int = 36
    iterations: Count = 12000
    """Of each actor, batch 64."""
    critic_epochs: Count = 40
    evaluations: Count = 150
    """Held-out starts, the same for every policy."""
    live_evaluations: Count = 10
    """Of these, so many also on the live graph."""
    realtime_evaluations: int = 2
    """Of these, so many in real time, where control jitter and latency mean something."""
    beta: float = 1.0
    limit_s: float = 14.0
    """An episode that lasts longer has failed."""
    mess: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """How untidy demonstrations are: pauses, detours, missed grasps, off-centre placements."""
    correction_mess: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    workers: Count = 2
    disturbances: DisturbanceConfig = DisturbanceConfig()


def quick() -> DemoConfig:
    """The same path, end to end, in about three minutes: for tests, its figures mean nothing."""
    return DemoConfig(
        live_demonstrations=1,
        lockstep_demonstrations=7,
        live_starts=1,
        live_corrections=1,
        lockstep_starts=5,
        iterations=1000,
        critic_epochs=6,
        evaluations=8,
        live_evaluations=1,
        realtime_evaluations=1,
    )


def laboratory(settings: DemoConfig) -> LockstepConfig:
    """The simulated laboratory of the run; the live graph gets the same values as parameters."""
    bottle = BottleConfig(regime="retry")  # a mistake costs time and can be made good
    cell = CellConfig(task="bottle", bottle=bottle, disturbances=settings.disturbances)
    plain = OperatorConfig()
    operator = replace(
        plain,
        cell=cell,
        limit=settings.limit_s,
        correction_limit=settings.limit_s,
        style=replace(plain.style, mess=settings.mess),
        correction_style=replace(plain.correction_style, mess=settings.correction_mess),
    )
    return LockstepConfig(cell=cell, operator=operator, operator_seed=settings.seed)


def seeds(first: int, count: int, settings: DemoConfig) -> list[int]:
    """``count`` seeds of one purpose."""
    return [first + 1_000_000 * settings.seed + k for k in range(count)]
