"""A stack in real time that restarts its nodes, and eyes on what it says, for tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from policies import tiny_policy

from dexpie_ros.control.types import Mode
from dexpie_ros.graph import stack
from dexpie_ros.nodes.base import interface
from dexpie_ros.nodes.session_client import GraphError, SessionClient
from dexpie_ros.running_graph import RunningGraph

KEY_LISTENERS = 4
"""Arbiter, session, teleop, recorder."""
IDLE, RUNNING = 0, 2
START_S = 150.0
"""Seven processes on a machine that does other things, too."""
ASKED = ("emergency_stop", "toggle", "force", "set", "clear_fault", "home")


class LiveGraph:
    """What a test does with a running graph."""

    def __init__(self, client: SessionClient, graph: RunningGraph, folder: Path) -> None:
        self.client, self.graph, self.folder = client, graph, folder
        self.policy, self.episodes = folder / "tiny", folder / "episodes"
        self.mode, self.reason, self.session, self.plan = Mode.HOLD, "", None, ""
        self.reasons: list[tuple[Mode, str]] = []
        self.heard = dict.fromkeys(("/control/step", "/policy/chunk"), 0)
        node = client.node
        # early: a server loses its answer to a client that it has not been matched with yet
        names = (
            *(f"/intervention/{name}" for name in ASKED),
            "/session/next",
            "/session/re_record",
        )
        self._clients = {name: node.client(name) for name in names}
        self.keys = node.publisher("/intervention/key")
        node.subscribe("/intervention/state", self._on_state)
        node.subscribe("/session/state", lambda m: setattr(self, "session", m))
        node.subscribe("/session/plan", lambda m: setattr(self, "plan", m.data))
        for topic in self.heard:
            node.subscribe(topic, lambda m, topic=topic: self._count(topic))

    def _on_state(self, message: Any) -> None:
        self.mode, self.reason = Mode(message.mode), message.reason
        self.reasons.append((self.mode, self.reason))

    def _count(self, topic: str) -> None:
        self.heard[topic] += 1

    @property
    def drives(self) -> bool:
        return self.mode is Mode.POLICY and self.reason == "the policy drives"

    def until(self, true: Callable[[], Any], what: str, timeout: float = 60.0) -> float:
        """Spin until; returns how long it took. Fails with what the graph logged."""
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > timeout:
                log = (self.folder / "graph.log").read_text(encoding="utf-8")[-3000:]
                raise AssertionError(
                    f"not within {timeout:g} s: {what}; now {self.mode.name}: {self.reason}\n{log}"
                )
            self.client.spin_for(0.01)
        return time.monotonic() - began

    def ask(
        self, service: str, data: bool | None = None, *, did: Callable[[], Any] = lambda: False
    ) -> tuple[bool, str]:
        """``did``: whether it was carried out although no answer came, of what twice is not once."""
        kind = "std_srvs/srv/Trigger" if data is None else "std_srvs/srv/SetBool"
        request = interface(kind).Request()
        if data is not None:
            request.data = data
        client = self._clients[service]
        self.until(client.service_is_ready, f"{service} there")
        # asked again: an answer is lost where the server is not yet matched with this client
        for patience in (15.0, 15.0, 60.0):
            future = client.call_async(request)
            with suppress(AssertionError):
                self.until(future.done, f"{service} answers", patience)
                return future.result().success, future.result().message
            if did():
                return True, "no answer came"
        raise AssertionError(f"{service} never answered")

    def take_over(self) -> None:
        """Until the operator drives; the key alone would give back what he has already."""
        human = partial(self.is_in, Mode.HUMAN)

        def take() -> None:
            if not human():
                self.ask("/intervention/force", did=human)

        self.persist(take, lambda: self.reason == "the operator drives", "the operator drives")

    def is_in(self, mode: Mode) -> bool:
        return self.mode is mode

    def was(self, text: str) -> bool:
        """Whether the arbiter gave this reason since `reasons` was cleared, if only for a moment."""
        return any(text in reason for _, reason in self.reasons)

    def key(self, text: str) -> None:
        # a key reaches only those who are matched by then
        self.until(
            lambda: self.keys.get_subscription_count() >= KEY_LISTENERS, "all listen to keys"
        )
        self.keys.publish(self.client.node.messages.text(text))

    def persist(self, act: Callable[[], Any], true: Callable[[], Any], what: str) -> None:
        """Act, and again every ten seconds until ``true``, as a person does who was refused.

        A takeover is refused while a stream of the operator is late, which a busy machine makes it.
        """
        for patience in (10.0,) * 5:
            act()
            with suppress(AssertionError):
                self.until(true, what, patience)
                return
        act()
        self.until(true, what)

    def start(self, name: str, kind: str = "deployment") -> None:
        policy = "" if kind == "demonstration" else str(self.policy)
        for last in (False, False, True):  # a node may be silent for longer than the session waits
            try:
                self.client.start(kind, seed=5, episode_id=name, policy_id=policy)
                break
            except GraphError:
                if last:
                    raise
                self.client.spin_for(1.0)
                if self.client.running:  # the answer was lost
                    break
        if kind != "demonstration":
            self.until(lambda: self.drives, "the policy drives")

    def end(self) -> None:
        """End what runs and clear what is wrong."""

        def over() -> bool:
            self.client.spin_for(0.1)
            if self.session is None:
                return False
            if self.session.phase == RUNNING and self.mode is not Mode.FAULT:
                with suppress(GraphError):  # somebody else may end it at the same moment
                    self.client.end("aborted", discard=True)
            elif self.session.phase == IDLE and self.mode is Mode.FAULT:
                self.ask("/intervention/clear_fault")
            return self.session.phase == IDLE and self.mode is Mode.HOLD

        self.until(over, "idle and holding", timeout=120.0)

    def pid(self, node: str) -> int | None:
        return self.graph.supervisor.nodes[node].pid

    def kill(self, node: str) -> None:
        """SIGKILL; the supervisor starts it again. `reasons` are those from then on."""
        pid = self.pid(node)
        assert pid is not None
        self.client.spin_for(0.1)
        os.kill(pid, signal.SIGKILL)
        self.reasons.clear()


@contextmanager
def live_graph(folder: Path, **arguments: Any) -> Iterator[LiveGraph]:
    """A deployed stack in real time, without lockstep, whose nodes are started again."""
    tiny_policy().save(folder / "tiny")
    values = {"rtf": 1, "lockstep": False, "images": "none", **arguments}
    patient = {"operator.limit": 600.0, "operator.correction_limit": 600.0}
    specs = [
        replace(
            spec,
            required=False,
            respawn=True,
            respawn_delay=0.1,
            parameters={
                **spec.parameters,
                **(patient if spec.kind == "simulated_operator" else {}),
            },
        )
        for spec in stack(
            "deploy",
            policy=str(folder / "tiny"),
            directory=str(folder / "episodes"),
            regime="terminal",
            **values,
        )
    ]
    with (
        RunningGraph(specs, log_file=folder / "graph.log") as graph,
        SessionClient(watch=graph.check) as client,
    ):
        live = LiveGraph(client, graph, folder)
        client.wait_ready(START_S, nodes=[spec.name for spec in specs])
        yield live
