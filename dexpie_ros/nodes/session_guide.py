"""Leads a person through a session: carries out what `control.SessionFlow` orders.

Keys arrive as services (the keyboard, the web page) or events (a pedal); prompts, quotas and the
picture of the start to be restored go out on /session/plan.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.clock import Clock, ClockType

from dexpie_ros.control import keys
from dexpie_ros.control.keys import Action
from dexpie_ros.control.modes import Answer
from dexpie_ros.control.session import Finished, label_of_fault
from dexpie_ros.control.session_flow import Begin, Discard, End, GoHome, Order, Phase, SessionFlow
from dexpie_ros.control.types import Mode
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.start_picture import start_picture
from dexpie_ros.nodes.base import interface
from dexpie_ros.nodes.session_marks import SessionMarks

if TYPE_CHECKING:
    from dexpie_ros.nodes.session import Session

SERVED = (Action.START, Action.RE_RECORD, Action.NEXT_STAGE, Action.QUIT)
ACTIONS = (*SERVED, Action.SUCCESS, Action.FAILURE, Action.ABORTED)
"""Those that are the session's business."""
MARKS = (Action.MARK_STAGE, Action.EXCLUDE)
"""Those that end nothing and begin nothing."""
NOT_AGAIN = "nothing to record again: only the episode that ended last can be, and once"


class SessionGuide:
    """Part of the session node; not for use alone."""

    def __init__(self, node: Session, flow: SessionFlow) -> None:
        self._node, self.flow = node, flow
        self._episode_id = ""
        self._marks = SessionMarks([stage.name for stage in flow.plan.progress()])
        self._directories: dict[str, Path] = {}
        self._pictures: dict[str, str] = {}
        """First pictures by episode, "" where it has none: looked for once."""
        self._publisher = node.publisher("/session/plan")
        for action in SERVED:
            node.serve(keys.SERVICES[action], self._server(action))
        for action in MARKS:
            node.serve(keys.SERVICES[action], self._marker(action))
        node.subscribe("/intervention/key", self._on_key)
        node.subscribe("/intervention/state", self._on_arbiter)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(0.5, self._on_time, clock=steady)
        self.announce()

    def announce(self) -> None:
        """Say where the session is."""
        flow, assignment = self.flow, self.flow.assignment
        said = {
            "phase": flow.phase.value,
            "prompt": flow.prompt,
            "assignment": vars(assignment) if assignment is not None else None,
            "picture": self._picture(assignment.same_start_as) if assignment is not None else "",
            "progress": [
                {"name": s.name, "have": s.have, "wanted": s.wanted} for s in flow.plan.progress()
            ],
        }
        self._publisher.publish(self._node.messages.text(json.dumps(said)))

    def ended(self, episode: Finished, directory: str, discarded: bool) -> list[Order]:
        """The node ended an episode, whoever asked for it."""
        if directory:
            self._directories[episode.episode_id] = Path(directory)
        if problem := self._marks.ended(episode.episode_id, directory, discarded):
            self._node.get_logger().error(problem)
        if episode.episode_id != self._episode_id:
            self.flow.other_ended()
            return []
        self._episode_id = ""
        return self.flow.ended(episode, discarded)

    def keep_start(self, episode_id: str) -> None:
        """Its recording is about to be thrown away: how the scene has to look for the next attempt."""
        if episode_id == self._episode_id:
            self._picture(episode_id)

    async def carry_out(self, orders: Sequence[Order]) -> None:
        """One order after the other, with those that follow from them."""
        waiting = deque(orders)
        self.announce()
        while waiting:
            waiting.extend(await self._carry_out(waiting.popleft()))
            self.announce()

    def later(self, orders: Sequence[Order]) -> None:
        """Carry out from a callback that cannot wait."""
        if orders and self._node.executor is not None:
            self._node.executor.create_task(self.carry_out, orders)
        else:
            self.announce()

    async def _carry_out(self, order: Order) -> list[Order]:
        if isinstance(order, GoHome):
            home, why = await self._node.go_home()
            return self.flow.homed() if home else self.flow.not_home(why)
        if isinstance(order, Begin):
            return await self._begin(order)
        if isinstance(order, End):
            ended, why, _ = await self._node.end_episode(order.outcome, order.cause, order.discard)
            if not ended:
                self._node.get_logger().error(f"the episode did not end cleanly: {why}")
            # Where there was none to end nobody tells the flow that it is over.
            lost = self.flow.phase is Phase.FINISHING and self._node.idle
            return self.flow.ended(None) if lost else []
        if isinstance(order, Discard):
            self._discard(order.episode_id)
        return []

    async def _begin(self, order: Begin) -> list[Order]:
        a = order.assignment
        request = interface("dexpie_msgs/srv/StartEpisode").Request(
            kind=a.kind,
            stage=a.stage,
            seed=a.seed,
            pair_id=a.pair_id,
            policy_id="" if a.kind == "demonstration" else self._node.parameters.policy_directory,
            note_json=json.dumps({"same_start_as": a.same_start_as}) if a.same_start_as else "",
        )
        started, why = await self._node.start_episode(request)
        if not started:
            return self.flow.refused(why)
        if not self._node.running:
            return self.flow.refused("it was ended while it started")
        self._episode_id = request.episode_id
        return self.flow.begun(self._node.now_ns())

    def _discard(self, episode_id: str) -> None:
        self._picture(episode_id)  # how the scene has to look again, while it can still be read
        directory = self._directory(episode_id)
        self._marks.forget(episode_id)
        if (directory / "metadata.yaml").is_file():
            shutil.rmtree(directory)

    def _server(self, action: Action) -> Any:
        async def serve(_request: Any, response: Any) -> Any:
            phase, prompt = self.flow.phase, self.flow.prompt
            orders = self._orders(action)
            await self.carry_out(orders)
            response.success = bool(orders) or (phase, prompt) != (
                self.flow.phase,
                self.flow.prompt,
            )
            if action is Action.QUIT:
                response.success = self.flow.leaving
            response.message = self.flow.prompt
            if not response.success:
                why = NOT_AGAIN if action is Action.RE_RECORD else "not now"
                response.message = f"{why}; the session is {phase.value}: {prompt}"
            return response

        return serve

    def _marker(self, action: Action) -> Any:
        def serve(_request: Any, response: Any) -> Any:
            response.success, response.message = self._mark(action)
            return response

        return serve

    def _mark(self, action: Action) -> Answer:
        if action is Action.EXCLUDE:
            return self._marks.exclude() if self._node.idle else (False, "only between episodes")
        if not self._node.running:
            return False, "no episode is running"
        episode = self._node.episode
        return self._marks.boundary(episode.episode_id, episode.stage, self._node.now_ns())

    def _orders(self, action: Action) -> list[Order]:
        """What follows from a key; an episode that somebody else began ends by the same keys."""
        own = self.flow.running or self.flow.phase is Phase.STARTING
        if own or self._node.idle:
            return self.flow.on_action(action)
        # While it still starts or closes nothing can be asked of it, and nothing else is meant.
        return self.flow.on_other(action) if self._node.running else []

    def _on_key(self, message: Any) -> None:
        if self.flow.phase is Phase.ASKING_CAUSE and keys.cause_of(message.data):
            self.later(self.flow.on_digit(message.data))
            return
        action, why = keys.resolve(message.data, self._node.running)
        if action in MARKS:
            self._node.get_logger().info(self._mark(action)[1])
            return
        if action is None and keys.binding_of(message.data) is not None:
            self._node.get_logger().warning(f"key {why}")
        if action not in ACTIONS or action is None:
            return  # the arbiter's or nobody's
        before = self.flow.phase, self.flow.prompt
        orders = self._orders(action)
        if not orders and before == (self.flow.phase, self.flow.prompt):
            name = keys.key_name(message.data)
            self._node.get_logger().warning(f"key {name}: not now; {before[0].value}: {before[1]}")
        self.later(orders)

    def _on_arbiter(self, message: Any) -> None:
        """An episode that meets a fault is over, and labelled by what happened."""
        if Mode(message.mode) is not Mode.FAULT:
            return
        self._node.doubt_all()
        if not self._node.running:
            return
        orders = self.flow.fault(message.reason)
        self.later(orders or [End(*label_of_fault(message.reason))])

    def _on_time(self) -> None:
        orders = self.flow.tick(self._node.now_ns())
        if orders:
            self.later(orders)
        elif self._node.running and (
            lost := self._node.recorder_lost() or self._node.recorder_ended()
        ):
            self.later([End("aborted", lost)])

    def _directory(self, episode_id: str) -> Path:
        directory = Path(self._node.parameters.directory) / episode_id
        return self._directories.get(episode_id, directory)

    def _picture(self, episode_id: str) -> str:
        if not episode_id:
            return ""
        if episode_id not in self._pictures:
            self._pictures[episode_id] = self._find_picture(episode_id)
        return self._pictures[episode_id]

    def _find_picture(self, episode_id: str) -> str:
        try:
            picture = start_picture(self._directory(episode_id))
        except (EpisodeError, OSError, ValueError) as error:
            self._node.get_logger().warning(f"no picture of the start: {error}")
            return ""
        return str(picture) if picture is not None else ""
