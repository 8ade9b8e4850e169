"""Experience: demonstrations, deployments and watched redeployments, live and in lockstep.

Everything here does only what is not there yet, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from dexpie_ros.demo.live import live_graph, run_live
from dexpie_ros.demo.settings import (
    DEMONSTRATION_SEEDS,
    DEPLOYMENT_SEEDS,
    DemoConfig,
    laboratory,
    seeds,
)
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import Episode, EpisodeError, EpisodeInfo
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.simulation.lockstep import Task, failed_step
from dexpie_ros.simulation.parallel import run_parallel

Advance = Callable[[], None]
"""To be called whenever one more episode is there."""
Bar = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar of a title and a total."""


def collect_demonstrations(settings: DemoConfig, folder: Path, bar: Bar) -> None:
    """By teleoperation through the graph, then more of them by the lockstep runner."""
    total = settings.live_demonstrations + settings.lockstep_demonstrations
    numbers = seeds(DEMONSTRATION_SEEDS, total, settings)
    tasks = [
        Task("demonstration", seed, episode_id=f"demonstration-{seed:07d}") for seed in numbers
    ]
    live, lockstep = tasks[: settings.live_demonstrations], tasks[settings.live_demonstrations :]
    _run_live(settings, folder, live, "demonstrations, live graph", bar)
    _run_lockstep(settings, folder, lockstep, "demonstrations, lockstep", bar)


def deploy(settings: DemoConfig, folder: Path, policy: Path, name: str, bar: Bar) -> None:
    """The policy alone; where it failed, the same start again with the operator on watch."""
    total = settings.live_starts + settings.lockstep_starts
    numbers = seeds(DEPLOYMENT_SEEDS, total, settings)
    tasks = [
        Task(
            "deployment", seed, pair_id=f"pair-{seed:07d}", episode_id=f"deployment-{seed:07d}",
            policy_name=name,
        )
        for seed in numbers
    ]  # fmt: skip
    live = _deploy_live(settings, folder, tasks, policy, bar)
    lockstep = tasks[live:]
    _run_lockstep(settings, folder, lockstep, "deployment, lockstep", bar, policy)
    watched = _corrections(folder, lockstep)
    _run_lockstep(settings, folder, watched, "corrections, lockstep", bar, policy)


def _deploy_live(
    settings: DemoConfig, folder: Path, tasks: Sequence[Task], policy: Path, bar: Bar
) -> int:
    """Deployments on the live graph until enough starts and enough corrections were seen there;
    returns how many of ``tasks`` that took.
    """

    def enough(count: int) -> bool:
        corrected = len(_corrections(folder, tasks[:count]))
        return count >= settings.live_starts and corrected >= settings.live_corrections

    def complete(count: int) -> bool:
        own = tasks[:count]
        wanted = (*own, *_corrections(folder, own))
        return all(finished(folder, task.episode_id) is not None for task in wanted)

    count = next((n for n in range(len(tasks) + 1) if enough(n) and complete(n)), None)
    if count is not None:
        return count
    with bar("deployment, live graph", settings.live_starts) as advance:
        with live_graph(folder, settings, policy) as client:
            for count, task in enumerate(tasks):
                if enough(count):
                    return count
                _once(client, folder, task, policy)
                for correction in _corrections(folder, [task]):
                    _once(client, folder, correction, policy)
                advance()
    return len(tasks)


def training_episodes(folder: Path) -> list[Episode]:
    """All recorded episodes but those of the evaluation, in the order of their ids."""
    found = Collection(folder / "episodes").filter(
        kind=("demonstration", "deployment", "correction"), status="finished"
    )
    return sorted(found.read(), key=lambda episode: episode.id)


def finished(folder: Path, episode_id: str) -> EpisodeInfo | None:
    """The description of an episode that was recorded to its end."""
    directory = folder / "episodes" / episode_id
    try:
        content = read_episode_file(directory)
    except EpisodeError:
        return None
    if content is None or content.status != "finished":
        return None
    # A recorder that was stopped closes its bag whole, as aborted: that episode is to be made again.
    return content.info if content.info.outcome in ("success", "failure") else None


def _corrections(folder: Path, tasks: Sequence[Task]) -> list[Task]:
    failed = []
    for task in tasks:
        info = finished(folder, task.episode_id)
        if info is not None and info.outcome == "failure":
            name = task.episode_id.replace("deployment", "correction")
            failed.append(
                replace(
                    task,
                    kind="correction",
                    episode_id=name,
                    failed_step=_failed_step(folder, task, info),
                )
            )
    return failed


def _failed_step(folder: Path, task: Task, info: EpisodeInfo) -> int:
    """When the failure was there to be seen; -1 for a timeout, which is no moment."""
    if info.cause == "timeout":
        return -1
    return failed_step(folder / "episodes" / task.episode_id)


def _missing(folder: Path, tasks: Sequence[Task]) -> list[Task]:
    """Those that are not there; what an interruption left of them is removed."""
    missing = []
    for task in tasks:
        if finished(folder, task.episode_id) is None:
            shutil.rmtree(folder / "episodes" / task.episode_id, ignore_errors=True)
            missing.append(task)
    return missing


def _run_live(
    settings: DemoConfig, folder: Path, tasks: Sequence[Task], title: str, bar: Bar
) -> None:
    missing = _missing(folder, tasks)
    if not missing:
        return
    with bar(title, len(missing)) as advance, live_graph(folder, settings) as client:
        for task in missing:
            run_live(client, task)
            advance()


def _once(client: SessionClient, folder: Path, task: Task, policy: Path) -> None:
    if _missing(folder, [task]):
        run_live(client, task, str(policy))


def _run_lockstep(
    settings: DemoConfig,
    folder: Path,
    tasks: Sequence[Task],
    title: str,
    bar: Bar,
    policy: str | Path = "",
) -> None:
    missing = _missing(folder, tasks)
    if not missing:
        return
    with bar(title, len(missing)) as advance:
        run_parallel(
            laboratory(settings),
            missing,
            folder / "episodes",
            policy,
            settings.workers,
            lambda rollout: advance(),
        )
