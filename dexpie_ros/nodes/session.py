"""Episodes from their start to their outcome: asks the other nodes in the right order.

Start: nobody commands -> the scene is set up -> the recorder listens -> the policy knows -> go.
End: hold -> the bag is closed -> idle. Every step is awaited, so nothing of an episode is lost and,
in lockstep, an episode does not depend on how messages race.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dexpie_ros import config as configs
from dexpie_ros.config import config
from dexpie_ros.control.modes import Answer
from dexpie_ros.control.session import Finished, SessionConfig, SessionPlan, StageQuota
from dexpie_ros.control.session_flow import SessionFlow
from dexpie_ros.control.types import KINDS
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.recording import ENDED_EARLY
from dexpie_ros.episodes.session_history import session_history
from dexpie_ros.nodes.base import OK, ContractNode, interface
from dexpie_ros.nodes.home_watch import HomeWatch
from dexpie_ros.nodes.session_guide import SessionGuide
from dexpie_ros.runtime import declare_config, run_node

IDLE, PREPARING, RUNNING, FINISHING = range(4)
HOMING_TIMEOUT_S = 120.0
SILENCE_S = 3.5
"""Nodes report once a second; one that is silent for longer is not asked."""
SERVED_BY = {
    "intervention": "intervention_arbiter",
    "simulation": "simulated_cell",
    "policy": "policy_server",
    "recorder": "recorder",
}
OUTCOMES = ("success", "failure", "aborted")


@config
class SessionParameters:
    """Parameters of the node."""

    task: str = "bottle"
    directory: str = "outputs/episodes"
    sim: bool = False
    """True: /simulation/reset sets up the scene."""
    record: bool = True
    policy: bool = True
    """True: a policy server is part of the stack."""
    policy_directory: str = ""
    """What episodes run that name no policy; a demonstration runs none."""
    plan: str = ""
    """YAML file of a `control.SessionConfig`: stages, quotas, purpose, flow."""
    episodes_wanted: int = 50
    """Without a plan: how many."""
    homing: bool = False
    """True: the robot moves home before every episode (a simulator resets it instead)."""
    episode_limit_s: float = 0.0
    """A longer episode of the session is a failure by timeout; 0: nobody ends it."""
    answer_timeout_s: float = 30.0
    recorder_silence_s: float = 10.0
    """Without a sign of the recorder for so long an episode is over."""


def resumed(p: SessionParameters) -> SessionPlan:
    """The plan, with the episodes that already lie in the directory."""
    if p.plan:
        settings = configs.load(SessionConfig, p.plan)
    else:
        quota = StageQuota("", demonstrations=p.episodes_wanted, episodes=p.episodes_wanted)
        purpose: Literal["demonstrations", "improvement"] = (
            "improvement" if p.policy_directory else "demonstrations"
        )
        settings = SessionConfig((quota,), purpose)
    if not p.record or not Path(p.directory).is_dir():
        return SessionPlan(settings)
    history = session_history(settings, Collection(p.directory), p.task)
    return SessionPlan(settings, history)


@dataclass(frozen=True)
class RunningEpisode:
    """What /session/state tells of the present episode."""

    episode_id: str = ""
    kind: str = ""
    task: str = ""
    stage: str = ""
    seed: int = -1
    policy_id: str = ""
    pair_id: str = ""
    directory: str = ""


class Session(ContractNode):
    """Serves /session/start_episode and /session/end_episode."""

    def __init__(self) -> None:
        super().__init__("session")
        self.parameters = p = declare_config(self, SessionParameters)
        self._phase, self._episode, self._recorded = IDLE, RunningEpisode(task=p.task), 0
        self._recording = False
        """Whether the recorder took the present episode."""
        self._state = self.publisher("/session/state")
        self._arbiter_prepare = self.client("/intervention/prepare")
        self._arbiter_start = self.client("/intervention/start_episode")
        self._arbiter_end = self.client("/intervention/end_episode")
        self._reset = self.client("/simulation/reset") if p.sim else None
        self._policy_start = self.client("/policy/start_episode") if p.policy else None
        self._recorder_start = self.client("/recorder/start_episode") if p.record else None
        self._recorder_end = self.client("/recorder/end_episode") if p.record else None
        self._arbiter_home = self.client("/intervention/home")
        self.serve("/session/start_episode", self._serve_start)
        self.serve("/session/end_episode", self._serve_end)
        self._heard: dict[str, float] = {}
        self._recorder_said: deque[tuple[float, str]] = deque(maxlen=3)
        self._home_watch = HomeWatch(SILENCE_S)
        self.subscribe("/diagnostics", self._on_diagnostics)
        self.report_diagnostics(self._diagnose)
        self._announce(IDLE)
        flow = SessionFlow(resumed(p), homing=p.homing, limit_s=p.episode_limit_s)
        self._guide = SessionGuide(self, flow)

    @property
    def running(self) -> bool:
        """Whether an episode is being recorded."""
        return self._phase == RUNNING

    @property
    def episode(self) -> RunningEpisode:
        """The present episode, or the last one."""
        return self._episode

    @property
    def idle(self) -> bool:
        """Whether no episode is there, neither starting nor closing."""
        return self._phase == IDLE

    def _announce(self, phase: int) -> None:
        self._phase = phase
        if phase == RUNNING:
            self._running_since = time.monotonic()
            self._recorder_said.clear()
        fields = dataclasses.asdict(self._episode)
        self._state.publish(
            self.messages.session_state(
                self.now_ns(), phase=phase, recorded=self._recorded, **fields
            )
        )

    # -- services --------------------------------------------------------------------------------
    async def _serve_start(self, request: Any, response: Any) -> Any:
        response.success, response.message = await self.start_episode(request)
        response.episode_id = request.episode_id if response.success else ""
        return response

    async def start_episode(self, request: Any) -> Answer:
        """Whether it runs, and why not; fills in what ``request`` leaves open."""
        if self._phase != IDLE:
            return False, f"episode {self._episode.episode_id} is still there; end it first"
        if request.kind not in KINDS:
            return False, f"kind {request.kind!r}: expected one of {', '.join(KINDS)}"
        if request.kind != "demonstration" and not request.policy_id:
            request.policy_id = self.parameters.policy_directory
            if not request.policy_id:  # the arbiter would wait for a chunk for ever
                return False, (
                    f"{request.kind} without a policy: the session knows none to run; start the "
                    "stack with policy:=DIRECTORY, or name one in policy_id"
                )
        request.episode_id = request.episode_id or time.strftime("%Y%m%d-%H%M%S")
        request.task = request.task or self.parameters.task
        request.directory = request.directory or self.parameters.directory
        self._episode = RunningEpisode(
            **{f.name: getattr(request, f.name) for f in dataclasses.fields(RunningEpisode)}
        )
        try:
            await self._start(request)
        except (TimeoutError, RuntimeError) as error:
            self.get_logger().error(f"episode not started: {error}")
            await self._give_up()
            return False, str(error)
        return True, ""

    async def _start(self, request: Any) -> None:
        self._announce(PREPARING)
        self._recording = False
        await self._ask(self._arbiter_prepare, interface("std_srvs/srv/Trigger").Request())
        if self._reset is not None:
            scene = interface("dexpie_msgs/srv/ResetScene").Request(
                task=request.task, stage=request.stage, seed=request.seed
            )
            answer = await self._ask(self._reset, scene)
            request.scene_stamp = answer.stamp
        if self._recorder_start is not None:
            await self._ask(self._recorder_start, request)
            self._recording = True
        if self._policy_start is not None and request.policy_id:
            await self._ask(self._policy_start, request)
        self._announce(RUNNING)
        await self._ask(self._arbiter_start, request)

    async def _serve_end(self, request: Any, response: Any) -> Any:
        response.episode_id = self._episode.episode_id if self.running else ""
        answer = await self.end_episode(request.outcome, request.cause, request.discard)
        response.success, response.message, response.directory = answer
        return response

    async def end_episode(
        self, outcome: str, cause: str = "", discard: bool = False
    ) -> tuple[bool, str, str]:
        """Whether it ended cleanly, what went wrong, and where the bag lies."""
        if not self.running:
            return False, "no episode is running", ""
        if outcome not in OUTCOMES:
            return False, f"outcome {outcome!r}: expected one of {', '.join(OUTCOMES)}", ""
        request = interface("dexpie_msgs/srv/EndEpisode").Request(
            outcome=outcome, cause=cause, discard=discard
        )
        episode, directory, problem = self._episode, "", self.recorder_lost()
        self._announce(FINISHING)
        lost = bool(problem)
        try:
            await self._ask(self._arbiter_end, request)
        except (TimeoutError, RuntimeError) as error:
            # What was recorded until then is closed all the same.
            problem = problem or str(error)
            request.outcome, request.cause = "aborted", problem
        try:
            if self._recorder_end is not None and not lost:
                if discard:
                    self._guide.keep_start(episode.episode_id)
                directory = (await self._ask(self._recorder_end, request)).directory
            self._recorded += not discard and not problem
        except (TimeoutError, RuntimeError) as error:
            problem = problem or str(error)
        if problem:
            self.get_logger().error(f"episode {episode.episode_id}: {problem}")
        self._announce(IDLE)
        finished = Finished(
            episode.episode_id, episode.kind, episode.stage, episode.seed, episode.pair_id,
            "aborted" if problem else outcome, cause or problem,
        )  # fmt: skip
        self._guide.later(self._guide.ended(finished, directory, discard))
        return not problem, problem, directory

    async def go_home(self) -> Answer:
        """Move the robot home, before an episode."""
        request = interface("std_srvs/srv/Trigger").Request()
        try:
            lost = self._home_watch.asked()
            answer = await self.call(self._arbiter_home, request, HOMING_TIMEOUT_S, lost)
        except TimeoutError as error:
            return False, str(error)
        return bool(answer.success), str(answer.message)

    def recorder_lost(self) -> str:
        """Why nothing is being recorded any more, or ""; by what the recorder says of itself."""
        if self._recorder_end is None or not self.running:
            return ""
        said = [text for at, text in self._recorder_said if at > self._running_since]
        if len(said) >= 2 and all(text == "idle" for text in said):
            return "the recorder was started anew; what it had lies there, repair it"
        last = max(self._running_since, *(at for at, _ in self._recorder_said), 0.0)
        silence = time.monotonic() - last
        if silence > self.parameters.recorder_silence_s:
            return f"the recorder is silent for {silence:.0f} s; what it had lies there, repair it"
        return ""

    def recorder_ended(self) -> str:
        """Why the recorder itself ended the bag (a full disk), or ""; it still has to be closed."""
        if self._recorder_end is None or not self.running or not self._recorder_said:
            return ""
        at, text = self._recorder_said[-1]
        return text if at > self._running_since and text.startswith(ENDED_EARLY) else ""

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            self._heard[status.name] = time.monotonic()
            if status.name == "recorder":
                self._recorder_said.append((time.monotonic(), status.message))
            elif status.name == SERVED_BY["intervention"]:
                self._home_watch.hear(status)

    async def _ask(self, client: Any, request: Any) -> Any:
        """RuntimeError where it is refused, TimeoutError where nobody answers."""
        await self._wait_alive(SERVED_BY[client.srv_name.split("/")[1]])
        answer = await self.call(client, request, self.parameters.answer_timeout_s)
        if not answer.success:
            raise RuntimeError(f"{client.srv_name}: {answer.message}")
        return answer

    def doubt_all(self) -> None:
        """After a fault a node may be another process than a moment ago, which must report first."""
        self._heard.clear()

    async def _wait_alive(self, node: str) -> None:
        """A service of a node that died is still there for a while, and swallows requests."""
        began = time.monotonic()
        while time.monotonic() - self._heard.get(node, -1e9) > SILENCE_S:
            if time.monotonic() - began > self.parameters.answer_timeout_s:
                raise TimeoutError(f"{node} is silent; is it running?")
            await self.pause(0.05)

    async def _give_up(self) -> None:
        """After a failed start: nothing half-written stays, and the robot holds.

        What the recorder was still recording is an earlier episode: it is closed and kept.
        """
        if self._recorder_end is not None and self._recorder_end.service_is_ready():
            request = interface("dexpie_msgs/srv/EndEpisode").Request(
                outcome="aborted",
                cause="" if self._recording else "the session had lost it",
                discard=self._recording,
            )
            try:
                await self.call(self._recorder_end, request, 5.0)
            except TimeoutError as error:
                self.get_logger().error(str(error))
        self._announce(IDLE)

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        phase = ("idle", "preparing", "running", "finishing")[self._phase]
        return OK, phase, {"episode": self._episode.episode_id, "recorded": self._recorded}


def main() -> int:
    return run_node(Session)


if __name__ == "__main__":
    sys.exit(main())
