"""trials.json: every counted trial of an experiment in little space.

`write_page` leaves it beside results.json. With it seeds that ran on several machines, or whose
folders are gone, make one report (``--add``), and anyone can work the statistics out anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dexpie_ros import config as configs
from dexpie_ros.config import ConfigError, config
from dexpie_ros.evaluation.experiments.folder import differing
from dexpie_ros.evaluation.experiments.results import STEP_S, ArmResult
from dexpie_ros.evaluation.experiments.settings import ExperimentConfig, Unit
from dexpie_ros.evaluation.statistics import Trial

Count = Annotated[int, Field(ge=0)]


@config
class Evaluation:
    """One arm of one unit; trial k began at start ``first_start + k``."""

    unit: str
    """Its folder, for instance ``A-retry/main/seed-000``."""
    arm: str
    steps: tuple[Count, ...]
    """To success, or to the end of an episode that failed."""
    failed: dict[str, tuple[Count, ...]]
    """Numbers of the failed trials by cause; all others succeeded."""
    untouched: tuple[Count, ...] = ()
    """Numbers of the trials in which the hand never touched the object."""

    def __post_init__(self) -> None:
        failed = [k for each in self.failed.values() for k in each]
        if len(set(failed)) != len(failed):
            raise ValueError(f"{self.unit} {self.arm}: a trial has two causes of failure")
        if max([*failed, *self.untouched, -1]) >= len(self.steps):
            raise ValueError(f"{self.unit} {self.arm}: it has only {len(self.steps)} trials")

    def trials(self, first_start: int) -> tuple[Trial, ...]:
        """What statistics count."""
        causes = {k: cause for cause, each in self.failed.items() for k in each}
        return tuple(
            Trial(
                start=str(first_start + k),
                success=k not in causes,
                time_s=steps * STEP_S,
                cause=causes.get(k, ""),
                contact=k not in self.untouched,
            )
            for k, steps in enumerate(self.steps)
        )


@config
class TrialsFile:
    """What the file holds."""

    format: Literal[1]
    experiment: dict[str, Any]
    """Settings, as in experiment.yaml."""
    first_start: int
    commits: tuple[str, ...]
    """Of the code that made the data, policies and evaluations."""
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Added:
    """Trials from files, of an experiment with the same settings."""

    trials: Mapping[tuple[str, str], tuple[Trial, ...]]
    """By unit folder and arm."""
    commits: tuple[str, ...]
    about: str
    """For the report: which files, and what they hold."""


NOTHING = Added({}, (), "")


def write_trials(
    settings: ExperimentConfig,
    results: Sequence[ArmResult],
    commits: Sequence[str],
    path: str | Path,
) -> None:
    """Write ``results``, one line for each arm and seed."""
    rows = [
        json.dumps(_row(r, k), separators=(",", ":")) for r in results for k in range(len(r.seeds))
    ]
    head = {
        "format": 1,
        "experiment": configs.to_dict(settings),
        "first_start": settings.first_start,
        "commits": list(commits),
    }
    lines = [f'"{key}": {json.dumps(value)},\n' for key, value in head.items()]
    body = ",\n".join(rows)
    configs.write_atomic(path, "{\n" + "".join(lines) + f'"evaluations": [\n{body}\n]}}\n')


def _row(result: ArmResult, index: int) -> dict[str, Any]:
    trials = result.trials[index]
    task, _, regime = result.cell.partition("-")
    unit = Unit(task, regime, result.variant, result.seeds[index], result.round)  # type: ignore[arg-type]
    failed: dict[str, list[int]] = {}
    for k, trial in enumerate(trials):
        if not trial.success:
            failed.setdefault(trial.cause, []).append(k)
    return {
        "unit": unit.folder,
        "arm": result.arm,
        "steps": [round(t.time_s / STEP_S) for t in trials],
        "failed": failed,
        "untouched": [k for k, t in enumerate(trials) if not t.contact],
    }


def read_trials(settings: ExperimentConfig, paths: Sequence[str | Path]) -> Added:
    """The trials of files that `write_trials` wrote, all of ``settings``' experiment.

    Raises:
        ConfigError: a file is damaged, of other settings or starts, or holds an evaluation that
            ``settings`` do not have, or two files differ in one.
    """
    wanted = {(u.folder, arm) for u in settings.units() for arm in settings.arms_of(u)}
    trials: dict[tuple[str, str], tuple[Trial, ...]] = {}
    commits: set[str] = set()
    about = []
    for path in map(Path, paths):
        content = _read(path)
        if content.first_start != settings.first_start:
            raise ConfigError(
                f"{path}: its starts begin at {content.first_start}, this report's at "
                f"{settings.first_start}: they cannot be compared"
            )
        if other := differing(content.experiment, configs.to_dict(settings), str(path)):
            raise ConfigError(
                f"{path}: trials of another experiment (differs in {', '.join(other)})"
            )
        for each in content.evaluations:
            key = (each.unit, each.arm)
            if key not in wanted:
                raise ConfigError(
                    f"{path}: {each.unit} {each.arm} is no part of this report; choose --tasks, "
                    "--seeds and --set first_seed=..., regimes=... and rounds so that it is"
                )
            own = each.trials(content.first_start)
            if trials.setdefault(key, own) != own:
                raise ConfigError(
                    f"{path}: {each.unit} {each.arm} has other trials in another file"
                )
        commits |= set(content.commits)
        about.append(f"{path} ({len(content.evaluations)} evaluations)")
    return Added(trials, tuple(sorted(commits)), ", ".join(about))


def _read(path: Path) -> TrialsFile:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ConfigError(
            f"{path}: {what}; give the trials.json beside the report of an experiment"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no trials.json of an experiment ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: no trials.json of an experiment (expected an object)")
    return configs.from_dict(TrialsFile, values, str(path))
