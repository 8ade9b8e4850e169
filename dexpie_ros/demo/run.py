"""`dexpie demo`: runs the stages one after the other; what is there already is not done again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dexpie_ros import config as configs
from dexpie_ros.config import ConfigError
from dexpie_ros.demo import collection, evaluation, learning, results
from dexpie_ros.demo.collection import Advance
from dexpie_ros.demo.settings import DemoConfig
from dexpie_ros.evaluation.experiments.results import trials_of
from dexpie_ros.evaluation.report import write_report
from dexpie_ros.evaluation.statistics import compare, summarise
from dexpie_ros.policy.policy import Policy

CONFIG, REPORT, RESULTS = "demo.yaml", "report.html", "results.json"


def run_demo(settings: DemoConfig, folder: Path, fresh: bool, command: str) -> Path:
    """From nothing to an improved policy; returns the report. Resumes what was interrupted."""
    _isolate()
    folder = folder.absolute()
    _refuse_what_is_no_run(folder)
    if fresh and folder.exists():
        _empty(folder)
    _claim(settings, folder)
    console = Console()
    began = time.monotonic()
    with _bars(console) as bar:
        collection.collect_demonstrations(settings, folder, bar)
        demonstrations = [
            e for e in collection.training_episodes(folder) if e.info.kind == "demonstration"
        ]
        bc = learning.learn_actor(settings, folder, "bc", demonstrations, None, bar)
        collection.deploy(settings, folder, bc, "bc", bar)
        episodes = collection.training_episodes(folder)
        critic = learning.learn_critic(settings, folder, episodes, bar)
        labels = learning.label_episodes(critic, episodes)
        dexpie = learning.learn_actor(settings, folder, "dexpie", episodes, labels, bar)
        policies = {results.BC: bc, results.DEXPIE: dexpie}
        lockstep, live = {}, {}
        for name, policy in policies.items():
            short = name.lower()
            lockstep[name] = evaluation.evaluate(settings, folder, short, policy, bar)
            live[name] = evaluation.evaluate_live(settings, folder, short, policy, bar)
        realtime = evaluation.evaluate_realtime(settings, folder, "dexpie", dexpie, bar)
    findings = results.Findings(
        episodes, labels, critic, lockstep, live, realtime,
        {name: Policy.load(policy).policy_id for name, policy in policies.items()},
    )  # fmt: skip
    data = results.report_data(settings, findings, command)
    report = write_report(folder / REPORT, data)
    _save_results(settings, folder, lockstep, live, data.environment)
    _print(console, settings, lockstep)
    console.print(f"\n{(time.monotonic() - began) / 60:.1f} minutes. Report: {report}")
    return report


def _isolate() -> None:
    """The demo's graph talks to nobody else's: this machine only, and a domain of its own."""
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")
    else:
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(10 + os.getpid() % 90))
    # One thread per process: two processes with two threads each are slower on two cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _refuse_what_is_no_run(folder: Path) -> None:
    """Also of a first run: with its demo.yaml in it, anybody's folder would be --fresh's to delete."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if folder.exists() and not folder.is_dir():
        there = ["a file"]
    if there and CONFIG not in there:
        raise ConfigError(
            f"{folder}: holds no demo run (no {CONFIG}) but {', '.join(there[:3])}"
            f"{' ...' if len(there) > 3 else ''}; nothing was changed or deleted; choose an "
            "--output that is new, empty or a demo run's"
        )


def _empty(folder: Path) -> None:
    """Its demo.yaml last: what an interruption leaves is still known as a demo run."""
    for path in sorted(folder.iterdir(), key=lambda p: p.name == CONFIG):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _claim(settings: DemoConfig, folder: Path) -> None:
    path = folder / CONFIG
    if path.is_file():
        if configs.load(DemoConfig, path) != settings:
            raise ConfigError(
                f"{path}: the run there has other settings; choose another --output, or start over "
                "with --fresh"
            )
        return
    configs.save_yaml(settings, path)


@contextmanager
def _bars(console: Console) -> Iterator[collection.Bar]:
    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:

        @contextmanager
        def bar(title: str, total: int) -> Iterator[Advance]:
            task = progress.add_task(title, total=total)
            if not console.is_terminal:
                console.print(f"{title} ...")
            yield lambda: progress.advance(task)
            progress.update(task, completed=total)

        yield bar


def _save_results(
    settings: DemoConfig,
    folder: Path,
    lockstep: dict[str, list[evaluation.Rollout]],
    live: dict[str, list[Path]],
    environment: object,
) -> None:
    values: dict[str, object] = {"environment": dict(environment)}  # type: ignore[call-overload]
    for name, rollouts in lockstep.items():
        trials = trials_of(rollouts)
        summary = summarise(trials, settings.limit_s)
        values[name] = {
            "successes": summary.successes,
            "n": summary.trials,
            "interval": [summary.success.low, summary.success.high],
            "median_time_s": summary.median_s if summary.successes else None,
            "restricted_mean_time_s": summary.restricted_mean_s.value,
            "live_successes": sum(t.success for t in evaluation.live_trials(live[name])),
            "live_n": len(live[name]),
        }
    configs.write_json(folder / RESULTS, values)


def _print(
    console: Console, settings: DemoConfig, lockstep: dict[str, list[evaluation.Rollout]]
) -> None:
    trials = {name: trials_of(r) for name, r in lockstep.items()}
    table = Table(title=f"{settings.evaluations} held-out starts, limit {settings.limit_s:g} s")
    for title in ("policy", "success", "95 % interval", "median time", "restricted mean time"):
        table.add_column(title, justify="left" if title == "policy" else "right")
    for name, own in trials.items():
        s = summarise(own, settings.limit_s)
        table.add_row(
            name,
            f"{s.successes}/{s.trials} = {s.success.value:.1%}",
            f"{s.success.low:.1%} .. {s.success.high:.1%}",
            f"{s.median_s:.1f} s" if s.successes else "-",
            f"{s.restricted_mean_s.value:.1f} s",
        )
    console.print(table)
    difference = compare(trials[results.DEXPIE], trials[results.BC], settings.limit_s)
    d = difference.success
    console.print(
        f"DexPIE - BC: {100 * d.value:+.1f} points (95 % {100 * d.low:+.1f} .. {100 * d.high:+.1f}), "
        f"exact McNemar p = {difference.test.p:.2g} "
        f"({difference.test.better} better, {difference.test.worse} worse)"
    )
