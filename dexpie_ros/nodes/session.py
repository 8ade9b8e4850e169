"""Episodes from their start to their outcome: asks the other nodes in the right order.

Start: nobody commands -> the scene is set up -> the recorder listens -> the policy knows -> go.
End: hold -> the bag is closed -> idle. Every step is awaited, so nothing of an episode is lost and,
in lockstep, an episode does not depend on how messages race.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass
from typing import Any

from dexpie_ros.config import config
from dexpie_ros.nodes.base import OK, ContractNode, interface
from dexpie_ros.runtime import declare_config, run_node

IDLE, PREPARING, RUNNING, FINISHING = range(4)
KINDS = ("demonstration", "deployment", "correction", "evaluation")
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
    answer_timeout_s: float = 30.0


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
        self._state = self.publisher("/session/state")
        self._arbiter_prepare = self.client("/intervention/prepare")
        self._arbiter_start = self.client("/intervention/start_episode")
        self._arbiter_end = self.client("/intervention/end_episode")
        self._reset = self.client("/simulation/reset") if p.sim else None
        self._policy_start = self.client("/policy/start_episode") if p.policy else None
        self._recorder_start = self.client("/recorder/start_episode") if p.record else None
        self._recorder_end = self.client("/recorder/end_episode") if p.record else None
        self.serve("/session/start_episode", self._serve_start)
        self.serve("/session/end_episode", self._serve_end)
        self.report_diagnostics(self._diagnose)
        self._announce(IDLE)

    def _announce(self, phase: int) -> None:
        self._phase = phase
        fields = dataclasses.asdict(self._episode)
        self._state.publish(
            self.messages.session_state(
                self.now_ns(), phase=phase, recorded=self._recorded, **fields
            )
        )

    # -- services --------------------------------------------------------------------------------
    async def _serve_start(self, request: Any, response: Any) -> Any:
        response.success = False
        if self._phase != IDLE:
            response.message = f"episode {self._episode.episode_id} is still there; end it first"
            return response
        if request.kind not in KINDS:
            response.message = f"kind {request.kind!r}: expected one of {', '.join(KINDS)}"
            return response
        request.episode_id = request.episode_id or time.strftime("%Y%m%d-%H%M%S")
        request.task = request.task or self.parameters.task
        request.directory = request.directory or self.parameters.directory
        self._episode = RunningEpisode(
            **{f.name: getattr(request, f.name) for f in dataclasses.fields(RunningEpisode)}
        )
        try:
            await self._start(request)
        except (TimeoutError, RuntimeError) as error:
            response.message = str(error)
            self.get_logger().error(f"episode not started: {error}")
            await self._give_up()
            return response
        response.success, response.episode_id = True, request.episode_id
        return response

    async def _start(self, request: Any) -> None:
        self._announce(PREPARING)
        await self._ask(self._arbiter_prepare, interface("std_srvs/srv/Trigger").Request())
        if self._reset is not None:
            scene = interface("dexpie_msgs/srv/ResetScene").Request(
                task=request.task, stage=request.stage, seed=request.seed
            )
            answer = await self._ask(self._reset, scene)
            request.scene_stamp = answer.stamp
        if self._recorder_start is not None:
            await self._ask(self._recorder_start, request)
        if self._policy_start is not None and request.policy_id:
            await self._ask(self._policy_start, request)
        self._announce(RUNNING)
        await self._ask(self._arbiter_start, request)

    async def _serve_end(self, request: Any, response: Any) -> Any:
        response.success = False
        if self._phase != RUNNING:
            response.message = "no episode is running"
            return response
        if request.outcome not in OUTCOMES:
            response.message = f"outcome {request.outcome!r}: expected one of {', '.join(OUTCOMES)}"
            return response
        response.episode_id = self._episode.episode_id
        self._announce(FINISHING)
        try:
            await self._ask(self._arbiter_end, request)
            if self._recorder_end is not None:
                answer = await self._ask(self._recorder_end, request)
                response.directory = answer.directory
            self._recorded += not request.discard
            response.success = True
        except (TimeoutError, RuntimeError) as error:
            response.message = str(error)
            self.get_logger().error(f"episode {response.episode_id}: {error}")
        self._announce(IDLE)
        return response

    async def _ask(self, client: Any, request: Any) -> Any:
        answer = await self.call(client, request, self.parameters.answer_timeout_s)
        if not answer.success:
            raise RuntimeError(f"{client.srv_name}: {answer.message}")
        return answer

    async def _give_up(self) -> None:
        """After a failed start: nothing half-written stays, and the robot holds."""
        if self._recorder_end is not None and self._recorder_end.service_is_ready():
            request = interface("dexpie_msgs/srv/EndEpisode").Request(
                outcome="aborted", discard=True
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
