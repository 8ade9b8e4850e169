"""A recording drives the robot again: `dexpie episodes replay ID --execute`.

It stands in the policy's place: an episode of the running session whose chunks are the recorded
commands. So the arbiter stays the only one that commands, with all its limits; the operator may
take over, and the episode is judged and recorded like any other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexpie_ros.control.types import STEP_NS, ControlStep
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.execution import POLICY_ID, Deviation, Execution, recorded_commands
from dexpie_ros.messages import read_control_step
from dexpie_ros.nodes.session_client import GraphError, SessionClient

LISTEN_S = 2.5
"""Every node reports once a second: after so long it is known who else is there."""
RUNNING = 2
STOP_STEPS = 5
SETTLE_STEPS = 25
"""Control steps from the last command to the verdict that was given beforehand."""


@dataclass(frozen=True)
class Executed:
    """How it went."""

    episode_id: str
    steps: int
    """Recorded commands that were executed."""
    of: int
    stopped: str
    """Why it ended before its end; empty: it did not."""
    deviation: Deviation
    outcome: str
    """Of the new episode; empty where it is not known here (nothing was recorded)."""
    directory: str


class GraphExecution:
    """Answers every /control/step of the episode that it starts. For one ``client``."""

    def __init__(self, client: SessionClient, episode: Episode) -> None:
        self.execution = Execution(recorded_commands(episode))
        self._client, self._episode = client, episode
        self._chunks = client.node.publisher("/policy/chunk")
        self._status = client.node.publisher("/policy/status")
        self._answers: list[tuple[Any, Any]] = []
        self._answered_ns = self._done_ns = self._now_ns = self._stopped_ns = 0
        self._count = 0
        self._active, self._name = False, ""
        self._session: Any = None
        self.stopped = ""
        """Why the recording stopped driving before its end and before the episode's."""
        self._world_heard = False
        self._nodes_heard: set[str] = set()
        client.node.subscribe("/control/step", self._on_step)
        client.node.subscribe("/session/state", self._on_session)
        client.node.subscribe("/simulation/state", self._on_world, raw=True)
        client.node.subscribe("/diagnostics", self._on_diagnostics)

    @property
    def simulated(self) -> bool:
        """Whether what would move is a simulation. By what was heard: discovery may lag behind."""
        return self._world_heard

    @property
    def _robot_heard(self) -> bool:
        return self._world_heard or "arm_driver" in self._nodes_heard

    def require_graph(self, patience_s: float = 20.0) -> None:
        """Until the graph is ready. EpisodeError where it is not one for this recording, GraphError
        where it does not become ready.
        """
        end = time.monotonic() + patience_s
        self._client.wait_ready(patience_s)
        self._client.spin_for(LISTEN_S)
        # on a busy machine it may take longer to hear what would move, and for which task
        while time.monotonic() < end and not (self._session is not None and self._robot_heard):
            self._client.spin_for(0.1)
        task = self._episode.info.task
        if task and self._session is not None and self._session.task != task:
            raise EpisodeError(
                f"{self._episode.id} is of task {task}, this graph is set up for "
                f"{self._session.task}; launch it with task:={task}"
            )
        infos = self._client.node.get_publishers_info_by_topic("/policy/chunk")
        others = {info.node_name for info in infos} - {self._client.node.get_name()}
        others |= self._nodes_heard & {"policy_server"}
        if others or len(infos) > 1:
            raise EpisodeError(
                f"{', '.join(sorted(others)) or 'another replay'} drives this graph already; replay "
                "beside a stack without a policy: `dexpie launch collect`"
            )

    def start(self) -> str:
        """Begin the episode, in the recorded scene where it is a simulation; returns its id."""
        info = self._episode.info
        name = f"replay-{time.strftime('%Y%m%d-%H%M%S')}-{info.episode_id}"[:128]
        scene = self.simulated and info.simulated
        self._active, self._name = True, name
        self._client.start(
            "evaluation",
            seed=info.seed if scene else -1,
            stage=info.stage,
            policy_id=POLICY_ID,
            episode_id=name,
            note={"replay_of": info.episode_id},
        )
        return name

    def run(
        self,
        outcome: str = "",
        tend: Callable[[GraphExecution], None] = lambda _: None,
        patience_s: float = 30.0,
    ) -> Executed:
        """Until somebody judges the episode, or ``outcome`` a second after the last command.

        ``tend`` is called now and then. GraphError where the arbiter makes no steps any more; the
        episode is aborted then.
        """
        seen, heard = self._now_ns, time.monotonic()
        while self._client.running:
            self._client.spin_for(0.02)
            tend(self)
            if self._now_ns != seen:
                seen, heard = self._now_ns, time.monotonic()
            elif time.monotonic() - heard > patience_s:
                silent = self._client.error(f"no control step for {patience_s:g} s")
                with contextlib.suppress(GraphError):  # what was recorded is closed if possible
                    self.abort("no control steps")
                raise silent
            settled = self._done_ns and self._now_ns >= self._done_ns + SETTLE_STEPS * STEP_NS
            if outcome and settled:
                self._end(outcome)
                break
        self._active = False
        return self._result()

    def abort(self, cause: str) -> None:
        """End the episode as aborted, if it still runs."""
        if self._client.running:
            self._end("aborted", cause)
        self._active = False

    def _end(self, outcome: str, cause: str = "") -> None:
        """Somebody else may end it at the same moment, and has then the last word."""
        try:
            self._client.end(outcome, cause)
        except GraphError:
            self._client.spin_for(0.5)
            if self._client.running:
                raise

    def _result(self) -> Executed:
        execution, state = self.execution, self._session
        directory = Path(state.directory) / self._name
        try:
            content = read_episode_file(directory)
        except EpisodeError:
            content = None  # `episodes list` says what is wrong with it
        return Executed(
            self._name, execution.executed, len(execution), self.stopped,
            execution.deviation, content.info.outcome if content else "",
            str(directory) if content else "",
        )  # fmt: skip

    def _on_world(self, _: bytes) -> None:
        self._world_heard = True

    def _on_diagnostics(self, message: Any) -> None:
        self._nodes_heard |= {status.name for status in message.status}

    def _on_session(self, message: Any) -> None:
        self._session = message

    def _on_step(self, message: Any) -> None:
        if not self._active:
            return
        step = read_control_step(message)
        self._now_ns = step.time_ns
        if step.time_ns == self._answered_ns:
            for publisher, answer in self._answers:  # asked again: they were not heard
                publisher.publish(answer)
            return
        self._answers = self._answer(step)
        self._answered_ns = step.time_ns
        for publisher, answer in self._answers:
            publisher.publish(answer)
        if self.execution.done and not self._done_ns:
            self._done_ns = step.time_ns
        self._note_stop(step.time_ns)

    def _note_stop(self, now_ns: int) -> None:
        """The arbiter also holds when the episode ends, and may say so before the session does."""
        if not self.execution.stopped:
            return
        self._stopped_ns = self._stopped_ns or now_ns
        running = self._session is not None and self._session.phase == RUNNING
        if running and now_ns - self._stopped_ns >= STOP_STEPS * STEP_NS:
            self.stopped = self.execution.stopped

    def _answer(self, step: ControlStep) -> list[tuple[Any, Any]]:
        make, chunk = self._client.node.messages, self.execution.answer(step)
        self._count += chunk is not None
        status = make.policy_status(
            step.time_ns,
            policy_id=POLICY_ID,
            inferred=chunk is not None,
            prefix_length=chunk.prefix_length if chunk is not None else 0,
            inferences=self._count,
            skipped=0,
            latency_s=(0.0, 0.0, 0.0),
        )
        answers = [(self._status, status)]
        if chunk is not None:
            answers.insert(0, (self._chunks, make.action_chunk(chunk, self._episode.id)))
        return answers
