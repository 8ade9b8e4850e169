"""A program's hands on a running graph: start an episode, wait for its end, look at topics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor

from dexpie_ros.asking import silence
from dexpie_ros.nodes.base import ContractNode, interface
from dexpie_ros.runtime import prepare_process, spin_for

IDLE, RUNNING = 0, 2
LOST_S = 15.0
"""Without an answer for so long, and without a sign of it, a request did not arrive."""


class GraphError(RuntimeError):
    """The running graph refused something or does not answer; the message says what to look at."""


class SessionClient:
    """Talks to the session node of a running graph; one per process, as a context manager."""

    def __init__(
        self, name: str = "session_client", watch: Callable[[], None] = lambda: None
    ) -> None:
        """``watch`` is called while waiting; it raises if waiting has become pointless."""
        self._watch = watch
        prepare_process()
        rclpy.init()
        self.node = ContractNode(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._start = self.node.client("/session/start_episode")
        self._end = self.node.client("/session/end_episode")
        self._state: Any = None
        self.step: Any = None
        """The newest /control/step message."""
        self.steps_seen = 0
        self._complaints: dict[str, str] = {}
        self.node.subscribe("/diagnostics", self._on_diagnostics)
        self.node.subscribe("/session/state", self._on_state)
        self.node.subscribe("/control/step", self._on_step)

    def __enter__(self) -> SessionClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown()

    def _on_state(self, message: Any) -> None:
        self._state = message

    def _on_step(self, message: Any) -> None:
        self.step = message
        self.steps_seen += 1

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            level = status.level[0] if isinstance(status.level, bytes) else status.level
            if level:
                self._complaints[status.name] = status.message
            else:
                self._complaints.pop(status.name, None)

    @property
    def running(self) -> bool:
        """Whether an episode is there."""
        return self._state is not None and self._state.phase != IDLE

    def error(self, text: str) -> GraphError:
        """``text`` with what the nodes themselves complain of."""
        said = "; ".join(f"{name}: {message}" for name, message in self._complaints.items())
        return GraphError(f"{text}. The nodes say: {said}" if said else text)

    def spin_for(self, seconds: float) -> None:
        """Serve callbacks for this long (wall time)."""
        spin_for(self._executor, seconds)

    def _spin_once(self) -> None:
        self._executor.spin_once(timeout_sec=0.1)
        self._watch()

    def wait_ready(self, timeout_s: float = 60.0, nodes: Sequence[str] = ()) -> None:
        """Until the session is there and idle, the arbiter makes control steps, and ``nodes`` are
        all on the graph.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self._spin_once()
            idle = self._state is not None and self._state.phase == IDLE
            if set(nodes) - set(self.node.get_node_names()):
                continue
            if idle and self.step is not None and self._start.service_is_ready():
                return
        if self._state is None:
            raise self.error(f"no /session/state within {timeout_s:g} s: is the session node up?")
        if missing := sorted(set(nodes) - set(self.node.get_node_names())):
            raise self.error(f"not on the graph within {timeout_s:g} s: {', '.join(missing)}")
        raise self.error(
            f"no /control/step within {timeout_s:g} s: see the log of intervention_arbiter and of "
            "what it waits for (arm, hand, teleop)"
        )

    def start(
        self,
        kind: str,
        *,
        seed: int = -1,
        stage: str = "",
        policy_id: str = "",
        pair_id: str = "",
        episode_id: str = "",
        directory: str = "",
        note: Mapping[str, Any] | None = None,
    ) -> str:
        """Begin an episode; returns its id. GraphError says why it could not."""
        request = interface("dexpie_msgs/srv/StartEpisode").Request(
            kind=kind, seed=seed, stage=stage, policy_id=policy_id, pair_id=pair_id,
            episode_id=episode_id or time.strftime("%Y%m%d-%H%M%S"), directory=directory,
            note_json=json.dumps(dict(note)) if note else "",
        )  # fmt: skip
        before = self._state

        def begun() -> Any:
            state = self._state
            mine = state is not before and state.episode_id == request.episode_id
            return state if mine and state.phase == RUNNING else None

        return str(self._ask(self._start, request, IDLE, begun).episode_id)

    def end(self, outcome: str, cause: str = "", discard: bool = False) -> str:
        """End the running episode; returns the directory of its bag."""
        request = interface("dexpie_msgs/srv/EndEpisode").Request(
            outcome=outcome, cause=cause, discard=discard
        )
        before = self._state

        def over() -> Any:
            if self._state is before or self._state.phase != IDLE:
                return None
            answer = interface("dexpie_msgs/srv/EndEpisode").Response()
            answer.success = bool(self._state.episode_id)
            if not answer.success:
                answer.message = "the session was started anew; what was recorded is aborted"
                return answer
            bag = Path(self._state.directory) / self._state.episode_id
            answer.directory = "" if discard or not bag.is_dir() else str(bag)
            return answer

        return str(self._ask(self._end, request, RUNNING, over).directory)

    def wait_end(self, timeout_s: float = 120.0) -> None:
        """Until somebody (the operator) has ended the episode and its bag is closed."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self._spin_once()
            if self._state is not None and self._state.phase == IDLE:
                return
        raise self.error(
            f"the episode was not ended within {timeout_s:g} s: see the operator's log"
        )

    def _ask(
        self,
        client: Any,
        request: Any,
        asked_in: int,
        carried_out: Callable[[], Any],
        timeout_s: float = 60.0,
    ) -> Any:
        """Its answer. One that is lost is told by the state that followed (``carried_out``); the
        request is, where for long the session stays in the phase ``asked_in``: asked again then.
        """
        if not client.wait_for_service(timeout_sec=10.0):
            raise self.error(f"{client.srv_name} is not there: is the session node up?")
        futures = [client.call_async(request)]
        end, sent = time.monotonic() + timeout_s, time.monotonic()
        answer = None
        while answer is None:
            self._spin_once()
            answer = next((future.result() for future in futures if future.done()), None)
            now = time.monotonic()
            if answer is not None or now - sent < LOST_S:
                continue
            answer = carried_out()
            if answer is None and now > end:
                raise self.error(silence(client.srv_name, timeout_s))
            if answer is None and self._state is not None and self._state.phase == asked_in:
                futures.append(client.call_async(request))
                sent = now
        if not getattr(answer, "success", True) and len(futures) > 1:
            # one of them may be refused for what the other does just now
            end = time.monotonic() + LOST_S
            while time.monotonic() < end and not (done := carried_out()):
                self._spin_once()
            answer = done or answer
        for future in futures:
            if not future.done():
                client.remove_pending_request(future)
        if not getattr(answer, "success", True):
            raise self.error(f"{client.srv_name}: {answer.message}")
        # The state that belongs to the answer may arrive after it.
        if client is self._start:
            while self._state is None or self._state.phase == IDLE:
                self._spin_once()
                if time.monotonic() > end:
                    raise self.error("/session/state did not follow the start of the episode")
        return answer
