"""Episodes without ROS: the same cell, operator, teleop, arbiter, policy and writer, in one loop.

The graph and this runner call the same objects with the same values in the same order; they differ
only in who calls. An episode depends on its task and config, neither on the episodes before it (but
for its time stamps, which go on) nor on how fast the machine is: an inference takes
``inference_delay_steps`` of simulated time however long it took.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexpie_ros.config import config
from dexpie_ros.contract import recorded_topics
from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.teleop import Teleop, TeleopConfig, make_retargeting
from dexpie_ros.control.types import STEP_NS, Chunk, ControlStep, Mode, Observation
from dexpie_ros.episodes.episode import EpisodeInfo, Kind
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.writer import EpisodeWriter, WriterConfig
from dexpie_ros.messages import Messages, bag, serialize
from dexpie_ros.policy.asynchronous import AsyncConfig, AsyncPolicy
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.settings import InferenceSettings
from dexpie_ros.simulation.cell import Cell, CellConfig, CellState
from dexpie_ros.simulation.operator import (
    ROLES,
    Operator,
    OperatorConfig,
    OperatorOutput,
    with_role,
)
from dexpie_ros.simulation.streams import encode_jpeg, state_messages

TRACKER_WORLD = "tracker_world"

_WENT_WRONG = "went_wrong_step"
"""Of an episode's statistics: what the operator remembers of it."""
_DECLARED_STEPS = 6
"""Between a failure and the end of its episode: the operator declares it 0.2 s later."""


def failed_step(directory: Path) -> int:
    """When a recorded episode went wrong: as the operator remembers it, else where it failed or was
    given up, which its end declares; -1: not recorded.
    """
    content = read_episode_file(directory)
    if content is None:
        return -1
    step = content.statistics.get(_WENT_WRONG)
    return step if isinstance(step, int) else max(0, content.steps - _DECLARED_STEPS)


@config
class LockstepConfig:
    """One simulated laboratory."""

    cell: CellConfig = CellConfig()
    operator: OperatorConfig = OperatorConfig()
    teleop: TeleopConfig = TeleopConfig()
    arbiter: ArbiterConfig = ArbiterConfig()
    inference: AsyncConfig = AsyncConfig()
    sampling: InferenceSettings | None = None
    """How the policy samples; None: as it was saved."""
    inference_delay_steps: int = 2
    """Control steps of simulated time from an observation to its chunk."""
    operator_seed: int = 0
    images: bool = False
    """Record camera images (rendering costs most of the time)."""
    # The lockstep runner is no place for a power cut to be feared, and syncing costs most of it.
    writer: WriterConfig = WriterConfig(durable=False)


@dataclass(frozen=True)
class Task:
    """One episode to be run."""

    kind: Kind
    seed: int
    stage: str = ""
    pair_id: str = ""
    episode_id: str = ""
    policy_name: str = ""
    failed_step: int = -1
    """Control step at which this start went wrong before, known to who watches; -1: not seen."""
    note: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollout:
    """How an episode went; times in control steps."""

    seed: int
    kind: str
    outcome: str
    """As declared: success or failure."""
    cause: str
    steps: int
    success_step: int | None
    """First step at which the goal was reached and held; None without."""
    human_steps: int
    interventions: int
    stalls: int
    contact: bool = False
    """The hand touched the object at some step."""
    latencies_ms: tuple[float, ...] = ()
    """Of each inference."""
    seams_m: tuple[float, ...] = ()
    directory: str = ""
    notes: tuple[str, ...] = ()
    disturbed: bool = False
    """Something went wrong by itself: a disturbance was not only drawn, but acted."""


class LockstepRunner:
    """Runs episodes one after the other in one cell; closes with :meth:`close`."""

    def __init__(self, settings: LockstepConfig, policy: Policy | None = None) -> None:
        self.config = settings
        self._cell = Cell(settings.cell)
        self._operator = Operator(settings.operator, settings.operator_seed)
        self._retargeting = make_retargeting(settings.teleop)
        self._policy = policy

    def close(self) -> None:
        self._cell.close()

    def run(self, task: Task, directory: str | Path | None = None) -> Rollout:
        """One episode, recorded below ``directory`` if that is given."""
        if task.kind != "demonstration" and self._policy is None:
            raise ValueError(f"an episode of kind {task.kind} needs a policy")
        writer = self._writer(task, directory) if directory is not None else None
        if writer is None:
            return _Run(self, task, None).loop()
        with writer:
            return _Run(self, task, writer).loop()

    def _writer(self, task: Task, directory: str | Path) -> EpisodeWriter:
        name = task.episode_id or f"{task.kind}-{task.seed:06d}"
        info = EpisodeInfo(
            episode_id=name,
            kind=task.kind,
            task=self.config.cell.task,
            stage=task.stage,
            seed=task.seed,
            policy_id=task.policy_name,
            pair_id=task.pair_id,
            note={**task.note, "made_by": "lockstep"},
            simulated=True,
        )
        topics = recorded_topics("jpeg" if self.config.images else "none")
        return EpisodeWriter(Path(directory) / name, info, topics, self.config.writer)


class _Run:
    """The state of one episode."""

    def __init__(self, lab: LockstepRunner, task: Task, writer: EpisodeWriter | None) -> None:
        self._task, self._writer, self._config = task, writer, lab.config
        self._cell, self._operator = lab._cell, lab._operator
        # What it filtered and what it was calibrated to must not outlast an episode.
        self._teleop = Teleop(lab.config.teleop, lab._retargeting)
        self._operator.config = with_role(self._operator.config, ROLES[task.kind])
        self._arbiter = Arbiter(lab.config.arbiter)
        self._policy: AsyncPolicy | None = None
        if lab._policy is not None and task.kind != "demonstration":
            self._policy = AsyncPolicy(lab._policy, lab.config.inference, lab.config.sampling)
            self._policy.reset(task.seed)
        self._make: Messages | None = bag() if writer is not None else None
        self._arriving: deque[tuple[int, Chunk]] = deque()
        self._mode: tuple[Mode, str, int] | None = None
        self._notes: list[str] = []
        self._latencies: list[float] = []
        self._human_steps = 0
        self._success_step: int | None = None
        self._contact = False

    def loop(self) -> Rollout:
        state = self._cell.reset(self._task.seed, self._task.stage)
        memory = self._operator.memory
        memory.forget()
        if self._task.failed_step >= 0:
            memory.remember(self._task.seed, self._task.failed_step)
        self._operator.reset(state, self._task.seed)
        started, why = self._arbiter.start(self._task.kind)
        if not started:
            raise ValueError(f"episode {self._task.kind}-{self._task.seed}: {why}")
        while True:
            self._record_state(state)
            output = self._operator.observe(state, self._arbiter.mode)
            step = self._decide(state, output)
            self._contact |= state.contact
            if state.success and self._success_step is None:
                self._success_step = state.scene_tick
            if output.outcome:
                return self._finish(state, step, output)
            state = self._cell.step(step.command)

    def _decide(self, state: CellState, output: OperatorOutput) -> ControlStep:
        now, robot = state.time_ns, state.robot
        self._teleop.update(output.tracker, now)
        self._teleop.update_glove(output.ergonomics, "right", now)
        if output.calibrate:
            self._teleop.calibrate(robot)
        alignment = self._teleop.alignment(robot)
        follower = self._teleop.follower(now)
        if output.toggle:
            accepted, message = self._arbiter.toggle()
            if not accepted:
                self._notes.append(f"toggle refused: {message}")
        while self._arriving and self._arriving[0][0] <= now:
            self._arbiter.add_chunk(self._arriving.popleft()[1])
        step = self._arbiter.step(now, robot, follower, alignment)
        self._human_steps += step.mode is Mode.HUMAN
        if output.note:
            self._notes.append(output.note)
        self._record_decision(now, output, follower, alignment, step)
        if self._policy is not None:
            self._plan(step, lambda: Observation(now, robot, state.objects, self._images()))
        return step

    def _images(self) -> dict[str, Any]:
        assert self._policy is not None
        wanted = self._policy.policy.config.observation.images
        return {camera: self._cell.render(camera) for camera in wanted}

    def _plan(self, step: ControlStep, observation: Callable[[], Observation]) -> None:
        assert self._policy is not None
        chunk = self._policy.step(step, observation)
        if chunk is None:
            return
        due = step.time_ns + self._config.inference_delay_steps * STEP_NS
        chunk = self._policy.arrived(chunk, due)
        self._latencies.append(chunk.latency_ns * 1e-6)
        self._arriving.append((due, chunk))
        if self._make is not None:
            self._write(step.time_ns, "/policy/chunk", self._make.action_chunk(chunk))

    def _finish(self, state: CellState, step: ControlStep, output: OperatorOutput) -> Rollout:
        counts = self._arbiter.counts
        if self._writer is not None:
            statistics: dict[str, Any] = {"arbiter": self._arbiter.statistics()}
            if output.outcome == "failure":
                statistics[_WENT_WRONG] = self._operator.memory.step(self._task.seed)
            self._writer.finish(output.outcome, output.cause, statistics)
        return Rollout(
            seed=self._task.seed,
            kind=self._task.kind,
            outcome=output.outcome,
            cause=output.cause,
            steps=counts.steps,
            success_step=self._success_step,
            human_steps=self._human_steps,
            interventions=self._arbiter.interventions,
            stalls=step.stalls,
            contact=self._contact,
            latencies_ms=tuple(self._latencies),
            seams_m=tuple(seam.distance for seam in self._arbiter.executor.statistics.seams),
            directory=str(self._writer.directory) if self._writer is not None else "",
            notes=tuple(self._notes),
            disturbed=self._cell.disturbed,
        )

    # -- recording -------------------------------------------------------------------------------
    def _write(self, now: int, topic: str, message: Any) -> None:
        assert self._writer is not None
        self._writer.write(topic, serialize(message), now, now)

    def _record_state(self, state: CellState) -> None:
        if self._make is None:
            return
        for topic, message in state_messages(self._make, state):
            self._write(state.time_ns, topic, message)
        if self._config.images:
            for camera in self._config.cell.cameras:
                jpeg = encode_jpeg(self._cell.render(camera))
                message = self._make.compressed_image(state.time_ns, camera, jpeg)
                topic = f"/camera/{camera}/color/image_raw/compressed"
                self._write(state.time_ns, topic, message)

    def _record_decision(
        self, now: int, output: OperatorOutput, follower: Any, a: Any, step: ControlStep
    ) -> None:
        make = self._make
        if make is None:
            return
        said: list[tuple[str, Any]] = [
            ("/teleop/tracker", make.pose_stamped(now, TRACKER_WORLD, output.tracker)),
            ("/teleop/glove", make.glove(now, "right", output.ergonomics)),
            (
                "/teleop/alignment",
                make.alignment(
                    now, a.angle, a.hand_difference, a.angle_limit, a.hand_limit, a.aligned
                ),
            ),
            (
                "/control/command",
                make.control_command(now, step.command, step.tick, step.source),
            ),
            ("/control/step", make.control_step(step)),
        ]
        if follower is not None:
            said.append(
                ("/teleop/command", make.control_command(now, follower, frame=TRACKER_WORLD))
            )
        mode = (self._arbiter.mode, self._arbiter.reason, self._arbiter.interventions)
        if mode != self._mode:
            self._mode = mode
            said.append(("/intervention/state", make.intervention_state(now, *mode)))
        if output.note:
            note = json.dumps({"time_ns": now, "note": output.note})
            said.append(("/simulation/events", make.text(note)))
        for topic, message in said:
            self._write(now, topic, message)


def run_all(
    settings: LockstepConfig,
    tasks: Sequence[Task],
    directory: str | Path | None = None,
    policy: Policy | None = None,
) -> list[Rollout]:
    """Run ``tasks`` in this process, in their order."""
    runner = LockstepRunner(settings, policy)
    try:
        return [runner.run(task, directory) for task in tasks]
    finally:
        runner.close()
