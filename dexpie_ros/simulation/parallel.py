"""Lockstep episodes on several cores: one process per worker, results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from dexpie_ros.simulation.lockstep import LockstepConfig, LockstepRunner, Rollout, Task

OnDone = Callable[[Rollout], None]

_runner: LockstepRunner | None = None


def run_parallel(
    settings: LockstepConfig,
    tasks: Sequence[Task],
    directory: str | Path | None = None,
    policy: str | Path = "",
    workers: int = 2,
    on_done: OnDone | None = None,
) -> list[Rollout]:
    """Run ``tasks`` with the policy of a directory; what a task gives does not depend on the rest.

    ``on_done`` is called in this process whenever a task is finished. Ctrl-C ends the workers.
    """
    if not tasks:
        return []
    # Forking a process that has threads or ROS in it is asking for trouble.
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(tasks))
    arguments = (settings, str(policy))
    with ProcessPoolExecutor(count, context, _start_worker, arguments) as pool:
        futures = {pool.submit(_run, task, directory): i for i, task in enumerate(tasks)}
        results: list[Rollout | None] = [None] * len(tasks)
        try:
            for future in as_completed(futures):
                rollout = results[futures[future]] = future.result()
                if on_done is not None:
                    on_done(rollout)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [rollout for rollout in results if rollout is not None]


def _start_worker(settings: LockstepConfig, policy: str) -> None:
    global _runner
    # The parent decides when to stop; a worker in the middle of a bag finishes its episode.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    loaded = None
    if policy:
        import torch

        from dexpie_ros.policy.policy import Policy

        torch.set_num_threads(1)
        loaded = Policy.load(policy)
    _runner = LockstepRunner(settings, loaded)


def _run(task: Task, directory: str | Path | None) -> Rollout:
    assert _runner is not None
    return _runner.run(task, directory)
