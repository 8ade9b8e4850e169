"""Episodes in lockstep are independent: what ran before in the same laboratory changes no bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from policies import tiny_policy

from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.settings import EncoderConfig
from dexpie_ros.simulation.attention import AttentionConfig
from dexpie_ros.simulation.cell import Cell, CellConfig
from dexpie_ros.simulation.disturbances import DisturbanceConfig
from dexpie_ros.simulation.lockstep import LockstepConfig, LockstepRunner, Rollout, Task
from dexpie_ros.simulation.operator import OperatorConfig

SEED = 4242
ARRAYS = (
    "tcp", "joints", "hand", "hand_force", "command_tcp", "command_hand", "source", "mode",
    "proposal_tcp", "proposal_hand", "human_tcp", "human_hand", "objects", "contact",
)  # fmt: skip


@pytest.fixture(scope="module")
def policy() -> Policy:
    """An untrained policy: it wanders about."""
    return tiny_policy()


def laboratory() -> LockstepConfig:
    """Everything random is on; episodes are short."""
    disturbances = DisturbanceConfig(slip=1.0, drop=0.5, pose_error=1.0)
    cell = CellConfig(disturbances=disturbances)
    attention = AttentionConfig(false_alarm=0.3, stall=1.0)
    operator = OperatorConfig(cell=cell, limit=3.2, correction_limit=2.0, attention=attention)
    return LockstepConfig(cell=cell, operator=operator)


def played(folder: Path, tasks: list[Task], policy: Policy) -> tuple[Episode, Rollout]:
    """The last of ``tasks``, as read and as it went."""
    runner = LockstepRunner(laboratory(), policy)
    try:
        for task in tasks[:-1]:
            runner.run(task)
        rollout = runner.run(tasks[-1], folder)
    finally:
        runner.close()
    return read_episode(folder / tasks[-1].episode_id), rollout


@pytest.mark.parametrize("kind", ["demonstration", "deployment", "correction"])
def test_an_episode_is_the_same_whatever_ran_before(
    kind: str, policy: Policy, tmp_path: Path
) -> None:
    task = Task(kind, SEED, episode_id="it")  # type: ignore[arg-type]
    before = [
        Task("demonstration", 1),
        # the operator must not know of this very start but what its task says
        Task("deployment", SEED),
        Task("correction", 3, failed_step=60),
    ]
    first, one = played(tmp_path / "alone", [task], policy)
    second, two = played(tmp_path / "after", [*before, task], policy)
    assert len(first) == len(second) > 40
    for name in ARRAYS:
        a, b = getattr(first, name), getattr(second, name)
        assert a.tobytes() == b.tobytes(), name
    assert np.array_equal(first.time_ns - first.time_ns[0], second.time_ns - second.time_ns[0])
    timed = {"latencies_ms": (), "directory": ""}
    assert dataclasses.replace(one, **timed) == dataclasses.replace(two, **timed)
    if kind != "deployment":
        assert first.human.any() and one.human_steps > 0


def test_the_operator_knows_of_a_failure_what_the_task_says(policy: Policy, tmp_path: Path) -> None:
    """Told when the start failed, it takes over before; told nothing, it does not."""
    warned = Task("correction", SEED, episode_id="it", failed_step=50)
    _, told = played(tmp_path / "told", [warned], policy)
    blank = dataclasses.replace(warned, failed_step=-1)
    _, untold = played(tmp_path / "untold", [warned, blank], policy)
    assert "trigger forewarned" in told.notes
    assert "trigger forewarned" not in untold.notes


def test_cameras_are_rendered_only_for_an_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    cameras = ("front", "wrist")
    sees = tiny_policy(
        observation=ObservationSpec(parts=("tcp", "hand"), images=cameras),
        encoder=EncoderConfig(arch="small_cnn", weights="random", image_size=32),
    )
    plain = Cell.render
    monkeypatch.setattr(
        Cell, "render", lambda self, name: (seen.append(name), plain(self, name))[1]
    )
    runner = LockstepRunner(laboratory(), sees)
    try:
        rollout = runner.run(Task("deployment", SEED))
    finally:
        runner.close()
    assert len(rollout.latencies_ms) > 2
    assert seen == list(cameras) * len(rollout.latencies_ms)
