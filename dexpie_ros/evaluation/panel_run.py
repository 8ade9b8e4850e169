"""`dexpie evaluate POLICY --panel`: a policy on its task's panel in simulation, and what the phase
gate says of it (docs/protocol.md#panel-and-phase-gate).

The panel of a task is fixed: the same conditions and starts for every policy, so that results kept
as JSON stay comparable; ``--before`` puts two of them side by side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dexpie_ros import config as configs
from dexpie_ros.evaluation.experiments.results import trials_of
from dexpie_ros.evaluation.experiments.settings import (
    TASKS,
    ExperimentConfig,
    Regime,
    TaskKey,
    Unit,
    laboratory,
)
from dexpie_ros.evaluation.gate import Decision, GateConfig, decide
from dexpie_ros.evaluation.machine import machine
from dexpie_ros.evaluation.panel import (
    Condition,
    Panel,
    PanelResult,
    PanelTrial,
    evaluate_panel,
    load_result,
    save_result,
    simulated_panel,
)
from dexpie_ros.evaluation.report import write_report
from dexpie_ros.evaluation.report_data import ReportData, Reproduction
from dexpie_ros.evaluation.statistics import Interval, successes_within
from dexpie_ros.policy.policy import Policy
from dexpie_ros.simulation.cell import CellConfig
from dexpie_ros.simulation.lockstep import Kind, LockstepConfig, Rollout, Task, run_all
from dexpie_ros.simulation.parallel import run_parallel

FIRST_SEED = 720_000_000
"""Of the panel's starts: no collection and no other evaluation uses them."""
HELD_OUT = {
    "smaller": ("scale=0.93",),
    "larger": ("scale=1.07",),
    "heavier": ("mass_scale=1.5",),
}
"""Objects that no demonstration shows, as settings of the task."""
EXPERT = Path("expert")
"""In the place of a policy: the scripted expert at its best, who shows what a panel leaves room for."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class PanelRun:
    """What one call measured, and against what."""

    result: PanelResult
    before: PanelResult | None
    gate: Decision | None
    """From the nominal condition of ``before``, or of ``result`` where there is no before; the
    expert has none."""
    output: Path
    report: Path


def task_panel(task: TaskKey, regime: Regime = "retry", trials: int = 20) -> Panel:
    """The panel of task A, B or C: nominal, held-out objects, slip, drop, pose error."""
    setup = TASKS[task, regime]
    objects = {name: [f"{setup.task}.{o}" for o in own] for name, own in HELD_OUT.items()}
    # The regime decides what is simulated, so it belongs into what makes results comparable.
    name = setup.task if regime == "retry" else f"{setup.task}, {regime}"
    return simulated_panel(name, setup.limit_s, objects, trials, FIRST_SEED)


def panel_laboratory(task: TaskKey, regime: Regime, condition: Condition) -> LockstepConfig:
    """The evaluation laboratory of the experiments with one condition's overrides; its operator,
    whom only the expert's own trials need, makes no mistakes of style.
    """
    lab = laboratory(ExperimentConfig(mess=0.0), Unit(task, regime, "main", 0), "evaluation")
    values = configs.to_dict(lab.cell)
    for override in condition.overrides:
        configs.set_override(values, override)
    cell = configs.from_dict(CellConfig, values, f"condition {condition.name}")
    return dataclasses.replace(
        lab, cell=cell, operator=dataclasses.replace(lab.operator, cell=cell)
    )


def panel_trials(
    condition: Condition, rollouts: Sequence[Rollout], limit_s: float
) -> list[PanelTrial]:
    """Rollouts of one condition as trials; a success after the limit is none, but late."""
    trials = trials_of(rollouts)
    return [
        PanelTrial(
            condition.name,
            r.seed,
            bool(good),
            r.contact,
            r.disturbed,
            t.time_s,
            late=t.success and not good,
        )
        for r, t, good in zip(rollouts, trials, successes_within(trials, limit_s), strict=True)
    ]


def run_panel(
    policy: Path,
    task: TaskKey,
    regime: Regime = "retry",
    trials: int = 20,
    workers: int = 2,
    before: Path | None = None,
    output: Path | None = None,
    command: str = "dexpie evaluate",
    say: Say | None = None,
) -> PanelRun:
    """Run every condition, keep the trials as JSON and the report beside it. ``policy`` may be
    `EXPERT`.

    Raises:
        ConfigError: another task's policy, or ``before`` is no result of this panel.
    """
    panel = task_panel(task, regime, trials)
    loaded = None if policy == EXPERT else _own_policy(policy, task, regime)
    name = str(EXPERT) if loaded is None else loaded.policy_id
    earlier = load_result(before, panel) if before is not None else None
    found: list[PanelTrial] = []
    for condition in panel.conditions:
        if say is not None:
            say(f"{condition.name}: {condition.trials} starts")
        lab = panel_laboratory(task, regime, condition)
        kind: Kind = "demonstration" if loaded is None else "evaluation"
        tasks = [Task(kind, seed) for seed in condition.seeds()]
        if workers == 1:
            rollouts = run_all(lab, tasks, None, loaded)
        else:
            rollouts = run_parallel(lab, tasks, None, policy if loaded else "", workers)
        found += panel_trials(condition, rollouts, panel.limit_s)
    result = evaluate_panel(panel, name, found)
    path = output or Path("outputs") / "panel" / f"{task}-{regime}-{name[:12]}.json"
    save_result(path, result)
    nominal = (earlier or result).row("nominal")
    judged = (earlier or result).checkpoint != str(EXPERT)
    gate = decide(nominal.success, nominal.contact_entry, GateConfig()) if judged else None
    data = ReportData(
        f"Evaluation panel, task {task}",
        task=panel.task,
        description=f"{trials} held-out starts per condition, the same for every policy.",
        limit_s=panel.limit_s,
        panel=earlier or result,
        panel_after=result if earlier is not None else None,
        gate=gate,
        reproductions=(
            Reproduction("panel", command, f"{FIRST_SEED} to {FIRST_SEED + trials - 1}"),
        ),
        environment={"panel": panel.key, "machine": machine(), **configs.provenance()},
    )
    return PanelRun(result, earlier, gate, path, write_report(path.with_suffix(".html"), data))


def _own_policy(path: Path, task: TaskKey, regime: Regime) -> Policy:
    """The policy of ``path``, which must be one of the task's."""
    policy = Policy.load(path)
    known = set(TASKS[task, regime].object_names)
    if unknown := set(policy.config.observation.object_names) - known:
        raise configs.ConfigError(
            f"{path}: observes {', '.join(sorted(unknown))}, which task {task} does not have; "
            "choose the policy's own task with --task"
        )
    return policy


def show(run: PanelRun, console: Console) -> None:
    """The figures of a run, as a person reads them."""
    table = Table("condition", "starts", "success", "contact entry", "recovery")
    if run.before is not None:
        table.add_column("success before")
    for row in run.result.rows:
        recovery = "" if row.recovery is None else share(row.recovery)
        cells = [row.condition, str(row.trials), share(row.success), share(row.contact_entry)]
        earlier = [] if run.before is None else [share(run.before.row(row.condition).success)]
        table.add_row(*cells, recovery, *earlier)
    console.print(f"policy {run.result.checkpoint}, panel {run.result.panel}")
    console.print(table)
    if run.gate is not None:
        sure = "" if run.gate.certain else "; more trials could change that"
        console.print(f"phase gate: {run.gate.phase} ({'; '.join(run.gate.reasons)}){sure}")
    console.print(f"{run.output}\n{run.report}", soft_wrap=True)


def share(rate: Interval) -> str:
    """A rate in percent with its interval; a dash where nothing was tried."""
    if rate.value != rate.value:
        return "–"
    return f"{100 * rate.value:.0f} % ({100 * rate.low:.0f} .. {100 * rate.high:.0f})"
