"""What an experiment runs: tasks, budgets, seeds that never meet. Its arms: `arms.py`."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Literal

from pydantic import Field

from dexpie_ros.config import config, from_dict
from dexpie_ros.evaluation.experiments.arms import ARMS, Arm
from dexpie_ros.simulation.cell import CellConfig
from dexpie_ros.simulation.lockstep import LockstepConfig
from dexpie_ros.simulation.operator import OperatorConfig, longest_episode, with_role
from dexpie_ros.simulation.skills import StyleConfig

Count = Annotated[int, Field(ge=1)]
TaskKey = Literal["A", "B", "C"]
Regime = Literal["terminal", "retry"]
Collection = Literal["staged", "standard"]

DEMONSTRATIONS, DEPLOYMENTS, EVALUATIONS = 100_000, 20_000_000, 711_000_000
"""First seed of each purpose. Training seed k starts k * `SEED_STRIDE` further on for the first
two; the starts of the evaluation are the same for every policy and every training seed."""
DEVELOPMENT = 600_000_000
"""From here to `EVALUATIONS` lie the starts on which settings may be tried."""
SEED_STRIDE = 10_000
ROUND_STRIDE = 20_000_000
"""Deployments of round r start (r - 1) * `ROUND_STRIDE` further on."""


@config
class TaskSetup:
    """One task as people would do it. Times in s."""

    task: str
    object_names: tuple[str, ...]
    demonstrations: Count
    """Successful ones, as in the paper (A.2)."""
    trajectories: Count
    """Post-training episodes, corrections included, as in the paper (A.2)."""
    limit_s: float
    """Success counts within this: about 1.5 times the clean expert's median."""
    horizon_s: float
    """An episode is given up after this; the success-against-time curve reaches so far."""
    operator_limit_s: float
    """How long a person is given for a demonstration or, from the takeover on, for a correction."""
    options: dict[str, object]
    """Of the simulated cell, for instance ``{"bottle": {"regime": "retry"}}``."""


_SETUPS: dict[TaskKey, TaskSetup] = {
    "A": TaskSetup("bottle", ("bottle", "platform"), 41, 61, 8.7, 14.0, 16.0, {}),
    "B": TaskSetup("drawer", ("tissue_box", "drawer", "cabinet"), 30, 37, 16.5, 26.0, 26.0, {}),
    "C": TaskSetup("box", ("candy", "lid", "box"), 43, 59, 18.5, 28.0, 28.0, {}),
}
_REGIMES: tuple[Regime, ...] = ("terminal", "retry")
TASKS: dict[tuple[TaskKey, Regime], TaskSetup] = {
    (key, regime): replace(setup, options={setup.task: {"regime": regime}})
    for key, setup in _SETUPS.items()
    for regime in _REGIMES
}


@config
class Variant:
    """How post-training data are collected."""

    name: str = "main"
    collection: Collection = "staged"
    """staged: alone first; a failed start is restored and watched. standard (DAgger): always
    watched, corrected whenever the operator thinks it must, next start."""
    inference: Literal["async", "sync"] = "async"
    driven_like: str = ""
    """An earlier variant: the collection ends with the episode in which the operator has driven for
    as long as there, if that comes before the number of episodes."""
    arms: tuple[str, ...] = tuple(ARMS)

    def __post_init__(self) -> None:
        unknown = [a for a in self.arms if a not in ARMS]
        if unknown or len(set(self.arms)) != len(self.arms) or not self.arms:
            raise ValueError(f"arms: {self.arms}; choose, each once, from {', '.join(ARMS)}")


@config
class ExperimentConfig:
    """A whole experiment: every variant of every task with every training seed."""

    name: str = "ladder"
    tasks: tuple[TaskKey, ...] = ("A", "B", "C")
    regimes: tuple[Regime, ...] = ("retry",)
    """Mistakes that cost time (retry) or end the episode (terminal)."""
    variants: tuple[Variant, ...] = (Variant(),)
    seeds: Count = 12
    first_seed: Annotated[int, Field(ge=0)] = 0
    trials: Count = 200
    first_start: Annotated[int, Field(ge=DEVELOPMENT, le=EVALUATIONS)] = EVALUATIONS
    """Of the evaluation. A lower one for development, so that no start that counts is looked at
    while settings are sought; the report says so then."""
    iterations: Count = 12000
    """Training steps of every actor, batch 64; from scratch, but in arms with a ``warm_start``."""
    mess: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """How untidy demonstrations are: slow, pauses, detours, missed grasps, off-centre on A."""
    correction_mess: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    inference_delay_steps: Annotated[int, Field(ge=0)] = 2
    sync_delay_steps: Annotated[int, Field(ge=0)] = 4
    """How long a robot stands still for each synchronous inference."""
    critic_epochs: Annotated[int, Field(ge=0)] = 0
    """0: as the critic's presets have it."""
    demonstrations: Annotated[int, Field(ge=0)] = 0
    """0: the task's own number."""
    trajectories: Annotated[int, Field(ge=0)] = 0
    rounds: Annotated[int, Field(ge=1, le=20)] = 1
    """Round 1 deploys BC; every later one the improved policy of the round before, and all arms
    learn from the data of all rounds so far."""
    improver: str = "dexpie"
    """The arm whose policy later rounds deploy."""
    arms: dict[str, Arm] = field(default_factory=dict)
    """More arms, by name, on the data of every variant: for ablations."""

    def __post_init__(self) -> None:
        if not self.regimes:
            raise ValueError("regimes: choose retry, terminal or both")
        for name in self.arms:
            if name in ARMS or not name.replace("_", "").isalnum() or not name.isascii():
                raise ValueError(f"arms.{name}: expected a new name of letters, digits and _")
        if self.first_start < EVALUATIONS < self.first_start + self.trials:
            raise ValueError(
                f"first_start: {self.trials} trials from {self.first_start} on run into the starts "
                f"that count ({EVALUATIONS} on); begin lower"
            )
        for index, variant in enumerate(self.variants):
            earlier = [v.name for v in self.variants[:index]]
            if variant.driven_like and (variant.driven_like not in earlier or self.rounds > 1):
                raise ValueError(
                    f"variants.{variant.name}.driven_like: {variant.driven_like!r}; expected the name "
                    "of a variant before it, and one round"
                )
            if self.rounds > 1 and self.improver not in (*variant.arms, *self.arms):
                raise ValueError(
                    f"rounds: later ones deploy the policy of arm {self.improver}, which variant "
                    f"{variant.name} does not have; add it or set improver"
                )

    @property
    def starts(self) -> range:
        """Seeds of the evaluation, one for each trial."""
        return range(self.first_start, self.first_start + self.trials)

    def method(self, arm: str) -> Arm:
        return {**ARMS, **self.arms}[arm]

    def arms_of(self, unit: Unit) -> tuple[str, ...]:
        """Names of the unit's arms. BC learns from demonstrations only: no round changes it."""
        names = (*self.variant(unit.variant).arms, *self.arms)
        return tuple(a for a in names if unit.round == 1 or self.method(a).recipe != "bc")

    def tags_of(self, unit: Unit) -> dict[str, str]:
        """The labels that the unit's arms need: tag -> name of the critic behind them."""
        methods = [self.method(arm) for arm in self.arms_of(unit)]
        return {m.tag: m.critic_name for m in methods if m.labels}

    def units(self) -> list[Unit]:
        """All units, seeds outermost: an interrupted run has whole seeds."""
        out = []
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            for task in self.tasks:
                for regime in regimes_of(task, self.regimes):
                    for variant in self.variants:
                        rounds = range(1, self.rounds + 1)
                        out += [Unit(task, regime, variant.name, seed, r) for r in rounds]
        return out

    def variant(self, name: str) -> Variant:
        return next(v for v in self.variants if v.name == name)

    def setup(self, unit: Unit) -> TaskSetup:
        """The unit's task with this config's numbers."""
        setup = TASKS[unit.task, unit.regime]
        return replace(
            setup,
            demonstrations=self.demonstrations or setup.demonstrations,
            trajectories=self.trajectories or setup.trajectories,
        )


def regimes_of(task: TaskKey, wanted: tuple[Regime, ...]) -> list[Regime]:
    """The regimes of a task that were asked for, in the order in which it has them."""
    return [regime for key, regime in TASKS if key == task and regime in wanted]


@config
class Unit:
    """One task, collected one way, with one training seed: demonstrations, data, networks."""

    task: TaskKey
    regime: Regime
    variant: str
    seed: Annotated[int, Field(ge=0)]
    round: Annotated[int, Field(ge=1)] = 1

    @property
    def cell(self) -> str:
        """What is compared over seeds, for instance ``A-retry``."""
        return f"{self.task}-{self.regime}"

    @property
    def folder(self) -> str:
        later = f"/round-{self.round}" if self.round > 1 else ""
        return f"{self.cell}/{self.variant}/seed-{self.seed:03d}{later}"


def laboratory(settings: ExperimentConfig, unit: Unit, purpose: str) -> LockstepConfig:
    """The simulated laboratory for ``demonstration``, ``collection`` or ``evaluation``."""
    setup = settings.setup(unit)
    cell = from_dict(CellConfig, {"task": setup.task, **setup.options}, f"task {unit.task}")
    operator = OperatorConfig(
        cell=cell,
        limit=setup.operator_limit_s if purpose == "demonstration" else setup.horizon_s,
        correction_limit=setup.operator_limit_s,
        style=StyleConfig(mess=settings.mess),
        correction_style=replace(OperatorConfig().correction_style, mess=settings.correction_mess),
    )
    plain = LockstepConfig()
    sync = purpose == "collection" and settings.variant(unit.variant).inference == "sync"
    return replace(
        plain,
        cell=cell,
        operator=operator,
        operator_seed=unit.seed,
        inference=replace(plain.inference, mode="sync" if sync else "async"),
        inference_delay_steps=settings.sync_delay_steps if sync else settings.inference_delay_steps,
    )


def evaluation_of(settings: ExperimentConfig, unit: Unit, arm: str) -> LockstepConfig:
    """The laboratory in which an arm is evaluated: the same for all, but for what an arm asks."""
    lab = laboratory(settings, unit, "evaluation")
    horizon = settings.method(arm).execution_horizon
    if not horizon:
        return lab
    return replace(lab, inference=replace(lab.inference, execution_horizon=horizon))


def longest_steps(settings: ExperimentConfig, unit: Unit) -> int:
    """L of the returns: no episode of the unit lasts longer, so no return is cut off.

    It follows from the limits of the laboratory itself; the longest is a start that the policy
    nearly held until the horizon and that the operator then had all their own time for.
    """
    demonstration = laboratory(settings, unit, "demonstration").operator
    collection = laboratory(settings, unit, "collection").operator
    return max(
        longest_episode(with_role(demonstration, "demonstrate")),
        longest_episode(with_role(collection, "supervise")),
    )


def ladder(**changes: object) -> ExperimentConfig:
    """Every arm on every task."""
    return from_dict(ExperimentConfig, {"regimes": ["retry", "terminal"], **changes}, "ladder")


def async_against_sync(**changes: object) -> ExperimentConfig:
    """The same BC policy deployed both ways; DexPIE trained from either (paper, figure 6)."""
    arms = ["bc", "dexpie", "dexpie_paper"]
    variants = [
        {"name": "async", "arms": arms},
        {"name": "sync", "inference": "sync", "arms": arms},
    ]
    values = {"name": "async", "tasks": ["B"], "variants": variants, **changes}
    return from_dict(ExperimentConfig, values, "experiment async")


def staged_against_standard(**changes: object) -> ExperimentConfig:
    """Staged against standard DAgger (paper, figure 8): the same number of episodes, and, with fewer
    of them, the same time that the operator drives.
    """
    arms = ["bc", "dexpie", "dexpie_paper"]
    variants = [
        {"name": "staged", "arms": arms},
        {"name": "standard", "collection": "standard", "arms": arms},
        {
            "name": "standard_driven",
            "collection": "standard",
            "driven_like": "staged",
            "arms": arms,
        },
    ]
    values = {"name": "staged", "tasks": ["C"], "variants": variants, **changes}
    return from_dict(ExperimentConfig, values, "experiment staged")
