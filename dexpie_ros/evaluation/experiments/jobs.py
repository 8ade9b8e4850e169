"""Runs the units of an experiment on the cores there are: one process per job, one core each.

A unit's preparation (data, BC) comes first, then every set of labels with its critic and every arm
is a job of its own. Nothing is shared but the disk, and every job does only what is not there yet:
after an interruption, or with more seeds, the same call goes on from what it finds.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from dexpie_ros.evaluation.experiments.folder import LOCK, alone, claim
from dexpie_ros.evaluation.experiments.methods import check_arms
from dexpie_ros.evaluation.experiments.settings import ExperimentConfig, Unit
from dexpie_ros.evaluation.experiments.sharing import first_variant
from dexpie_ros.evaluation.experiments.unit import UnitRun, judged

PREPARE = ""
"""Stands for the preparation where an arm's name would stand."""
LABELS = "labels "
"""Begins, there, the name of a critic with its labels."""
FAILED = ": failed: "
"""Marks, in a unit's log.txt, jobs that ended by an error; the report names them ever after."""


@dataclass(frozen=True)
class Job:
    """The preparation of a unit, one set of its labels, or one of its arms."""

    unit: Unit
    arm: str

    @property
    def name(self) -> str:
        return f"{self.unit.folder} {self.arm or 'prepare'}"


@dataclass(frozen=True)
class Status:
    """Where an experiment stands; handed to the progress callback."""

    done: int
    total: int
    running: tuple[str, ...]
    failed: tuple[str, ...]
    elapsed_s: float
    remaining_s: float
    """Estimated from the jobs finished by this call; NaN before the first."""


Progress = Callable[[Status], None]


@dataclass
class _Queue:
    waiting: list[Job]
    done: set[Job] = field(default_factory=set)
    failed: list[Job] = field(default_factory=list)
    improver: str = "dexpie"
    after: dict[Job, Job] = field(default_factory=dict)
    """The labels that an arm needs, those whose critic others use, and the variant that another one
    begins from."""

    def needs(self, job: Job) -> Job | None:
        """What must be done before: a unit's preparation, which its labels need as well; an arm's
        labels; the policy that a later round deploys; the data of the variant it begins from.
        """
        if job in self.after:
            return self.after[job]
        if job.arm != PREPARE:
            return Job(job.unit, PREPARE)
        if job.unit.round == 1:
            return None
        return Job(replace(job.unit, round=job.unit.round - 1), self.improver)

    def take(self) -> Job | None:
        """The next job that nothing is missing for: labels, which arms wait for, then arms, then new
        units, so that seeds end.
        """

        def turn(job: Job) -> int:
            return 2 if job.arm == PREPARE else not job.arm.startswith(LABELS)

        for job in sorted(self.waiting, key=turn):
            before = self.needs(job)
            if before is None or before in self.done:
                self.waiting.remove(job)
                return job
        return None

    def drop(self, failed: Job) -> None:
        """What needs a job that failed cannot run, nor what needs that."""
        lost = [job for job in self.waiting if self.needs(job) == failed]
        self.waiting = [job for job in self.waiting if job not in lost]
        for job in lost:
            self.drop(job)


def run_experiment(
    settings: ExperimentConfig,
    root: str | Path,
    workers: int = 0,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Run what is missing below ``root``; returns the names of jobs that failed.

    Args:
        settings: Kept as ``root/experiment.yaml``; a folder of another experiment is refused,
            except that seeds, trials, rounds and arms may be added.
        root: Everything lies below it.
        workers: Processes; 0: one per core.
        progress: Called whenever a job starts or ends. On KeyboardInterrupt all jobs are ended.

    Raises:
        ConfigError: ``root`` holds another experiment, or another run is at work in it.
    """
    folder = Path(root)
    check_arms(settings)
    with alone(folder):
        claim(settings, folder)
        return _run(settings, folder, workers, progress)


def _run(
    settings: ExperimentConfig, folder: Path, workers: int, progress: Progress | None
) -> tuple[str, ...]:
    jobs = all_jobs(settings)
    over = _finished(settings, jobs, folder)
    waiting = [job for job in jobs if job not in over]
    queue = _Queue(waiting, over, improver=settings.improver, after=_after(settings))
    count = workers or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    running: dict[BaseProcess, Job] = {}
    started = time.monotonic()

    found = len(over)

    def report() -> None:
        if progress is None:
            return
        over = len(queue.done) + len(queue.failed)
        elapsed = time.monotonic() - started
        mine = over - found
        left = elapsed / mine * (len(jobs) - over) if mine else float("nan")
        names = tuple(job.name for job in running.values())
        failed = tuple(job.name for job in queue.failed)
        progress(Status(over, len(jobs), names, failed, elapsed, left))

    try:
        while queue.waiting or running:
            while len(running) < count and (job := queue.take()) is not None:
                process = context.Process(target=_work, args=(settings, job, str(folder)))
                process.start()
                running[process] = job
                report()
            wait([process.sentinel for process in running])
            for ended in [p for p in running if not p.is_alive()]:
                job = running.pop(ended)
                ended.join()
                if ended.exitcode == 0:
                    queue.done.add(job)
                else:
                    if ended.exitcode is not None and ended.exitcode < 0:  # it could not say so
                        _fail(folder, job, f"ended by {signal.Signals(-ended.exitcode).name}")
                    queue.failed.append(job)
                    queue.drop(job)
                report()
    finally:
        for left in running:
            left.terminate()
        for left in running:
            left.join()
    return tuple(job.name for job in queue.failed)


def all_jobs(settings: ExperimentConfig) -> list[Job]:
    """Every job of the experiment, done or not."""
    out = []
    for unit in settings.units():
        out.append(Job(unit, PREPARE))
        out += [Job(unit, LABELS + tag) for tag in settings.tags_of(unit)]
        out += [Job(unit, arm) for arm in settings.arms_of(unit)]
    return out


def _after(settings: ExperimentConfig) -> dict[Job, Job]:
    """What each arm with a condition needs: its labels; labels: those that bring their critic; a
    variant's data: those it is collected like, or else the first variant's, whose BC it deploys.
    """
    out: dict[Job, Job] = {}
    for unit in settings.units():
        like = settings.variant(unit.variant).driven_like
        before = replace(unit, variant=like) if like else first_variant(settings, unit)
        if unit.round == 1 and before != unit:
            out[Job(unit, PREPARE)] = Job(before, PREPARE)
        first: dict[str, Job] = {}
        for tag, critic in settings.tags_of(unit).items():
            job = Job(unit, LABELS + tag)
            if first.setdefault(critic, job) != job:
                out[job] = first[critic]
        for arm in settings.arms_of(unit):
            if settings.method(arm).labels:
                out[Job(unit, arm)] = Job(unit, LABELS + settings.method(arm).tag)
    return out


def _finished(settings: ExperimentConfig, jobs: list[Job], folder: Path) -> set[Job]:
    """Jobs whose results are there: arms with all starts, what they need with all arms of a unit."""
    wanted = set(settings.starts)
    out: set[Job] = set()
    arms = [job for job in jobs if job.arm in settings.arms_of(job.unit)]
    for job in arms:
        where = folder / job.unit.folder
        policy = where / "arms" / job.arm / "policy" / "config.yaml"
        if policy.is_file() and wanted <= {r.seed for r in judged(where, job.arm)}:
            out.add(job)
    open_units = {job.unit for job in arms if job not in out}
    return out | {job for job in jobs if job not in arms and job.unit not in open_units}


def _work(settings: ExperimentConfig, job: Job, root: str) -> None:
    """One job, in a process of its own; what it says goes to ``log.txt`` of its unit."""
    lock = open(Path(root) / LOCK, "a")  # held as long as this process lives
    fcntl.flock(lock, fcntl.LOCK_SH)
    # The parent decides when to stop, by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    begun = time.monotonic()

    def say(text: str) -> None:
        _say(Path(root), job, text)

    try:
        unit = UnitRun(settings, job.unit, Path(root), say)
        if job.arm == PREPARE:
            unit.collect()
        elif job.arm.startswith(LABELS):
            unit.label(job.arm.removeprefix(LABELS))
        else:
            unit.evaluate(job.arm)
    except Exception as error:
        _fail(Path(root), job, f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise
    say(f"done in {time.monotonic() - begun:.0f} s")


def _fail(root: Path, job: Job, why: str) -> None:
    _say(root, job, FAILED.removeprefix(": ") + why)


def _say(root: Path, job: Job, text: str) -> None:
    log = root / job.unit.folder / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {job.arm or 'prepare'}: {text}\n")
