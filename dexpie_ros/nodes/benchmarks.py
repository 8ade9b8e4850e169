"""How well the graph keeps time: `dexpie bench graph`.

The whole stack in real time, not in lockstep: simulated cell with both cameras, operator, teleop,
policy server, arbiter, session and recorder, each in its process, an episode being recorded; and a
further process, the measuring one, in the place of the arm's driver.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros.control.types import STEP_NS, Mode
from dexpie_ros.graph import NodeSpec, stack
from dexpie_ros.messages import stamp_ns
from dexpie_ros.nodes.arrivals import sent_ns, told
from dexpie_ros.nodes.base import interface
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.realtime import preferred_process
from dexpie_ros.running_graph import RunningGraph

SEED = 31_000
DIRECT = ("/control/command", "/policy/chunk")


def bench_graph(quick: bool = False) -> dict[str, float]:
    """Takes about 30 s (quick) or 2 min on two free cores.

    ``jitter_p99_ms``: deviation of the interval between two control steps from 40 ms, by the times
    at which they were sent.
    ``command_latency_p99_ms``: policy output -> driver without the wait for the tick at which an
    action is due: p99 of the chunk's way to another process, plus p99 from the last measurement of
    a step sent to its command sent, plus p99 of the command's way to another process.
    ``takeover_p99_ms``: from the operator's call of the service to the first control step that he
    drives, both in the measuring process; at most a step and the two ways.
    """
    with tempfile.TemporaryDirectory(prefix="dexpie-bench-") as name:
        folder = Path(name)
        policy = _policy(folder, 40 if quick else 150)
        specs = [
            _patient(spec)
            for spec in stack(
                "deploy",
                rtf=1,
                lockstep=False,
                regime="terminal",  # what was measured so far
                directory=str(folder / "episodes"),
                policy=str(policy),
            )
        ]
        with (
            RunningGraph(specs, log_file=folder / "graph.log") as graph,
            SessionClient("bench", watch=graph.check) as client,
        ):
            client.wait_ready(nodes=[spec.name for spec in specs])
            with preferred_process():  # as the drivers, in whose place this process stands
                return _Measurement(client, str(policy)).run(8 if quick else 60)


def _policy(folder: Path, iterations: int) -> Path:
    """A trained policy of the usual size; how good it is does not matter here."""
    from dexpie_ros.episodes.reader import read_episode
    from dexpie_ros.policy.observation import ObservationSpec
    from dexpie_ros.simulation.lockstep import LockstepConfig, Task, run_all
    from dexpie_ros.training.train import actor_preset, train_actor

    tasks = [Task("demonstration", SEED + k) for k in range(2)]
    demos = run_all(LockstepConfig(), tasks, folder / "demos")
    spec = ObservationSpec(parts=("tcp", "hand", "objects"), object_names=("bottle", "platform"))
    preset = actor_preset("cpu", "bc", spec)
    settings = replace(preset, loop=replace(preset.loop, iterations=iterations))
    return train_actor(settings, [read_episode(d.directory) for d in demos], None, folder / "bc")


def _patient(spec: NodeSpec) -> NodeSpec:
    """An operator who lets the episode run on."""
    if spec.kind != "simulated_operator":
        return spec
    limits = {"operator.limit": 3600.0, "operator.correction_limit": 3600.0}
    return replace(spec, parameters={**spec.parameters, **limits})


class _Measurement:
    def __init__(self, client: SessionClient, policy: str) -> None:
        self._client, self._policy = client, policy
        self._ways: dict[str, list[float]] = {topic: [] for topic in DIRECT}
        self._measured: dict[int, int] = {}
        """When the last measurement of each of the newest stamps was sent, ns."""
        self._decisions: list[float] = []
        self._sent: list[list[int]] = []
        """By episode: when each control step was sent, ns."""
        self._mode = Mode.HOLD
        self._human_ns = 0
        self.scheduling = ""
        self._tick = -1
        node = client.node
        if not told():
            raise RuntimeError(
                "bench graph: this ROS 2 does not tell when a message was sent; it needs Jazzy or later"
            )
        for topic in DIRECT:
            node.subscribe(topic, self._timed(topic))
        node.subscribe("/arm/tcp_pose", self._on_measurement)
        node.subscribe("/control/step", self._on_step)
        node.subscribe("/diagnostics", self._on_diagnostics)
        self._force = node.client("/intervention/force")
        self._toggle = node.client("/intervention/toggle")

    def _timed(self, topic: str) -> Any:
        def take(message: Any, info: Any) -> None:
            self._ways[topic].append((time.time_ns() - sent_ns(info)) * 1e-6)
            if topic == "/control/command":
                asked = self._measured.get(stamp_ns(message.header.stamp))
                if asked is not None:
                    self._decisions.append((sent_ns(info) - asked) * 1e-6)

        return take

    def _on_measurement(self, message: Any, info: Any) -> None:
        if len(self._measured) > 100:
            self._measured.clear()
        self._measured[stamp_ns(message.header.stamp)] = sent_ns(info)

    def _on_step(self, message: Any, info: Any) -> None:
        again = message.tick == self._tick  # somebody may not have heard the first one
        if self._sent and self._client.running and not again:  # between episodes the world stands
            self._sent[-1].append(sent_ns(info))
        self._tick = int(message.tick)
        mode = Mode(message.mode)
        if mode is Mode.HUMAN and self._mode is not Mode.HUMAN:
            self._human_ns = time.monotonic_ns()
        self._mode = mode

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name != "intervention_arbiter":
                continue
            values = {value.key: value.value for value in status.values}
            self.scheduling = values.get("scheduling", "")

    def _until(self, mode: Mode, timeout_s: float = 30.0) -> bool:
        """Whether that mode came; False where the episode ended instead (the bottle fell ...)."""
        end = time.monotonic() + timeout_s
        while self._mode is not mode:
            if not self._client.running:
                return False
            if time.monotonic() > end:
                raise self._client.error(f"bench graph: no {mode.name} within {timeout_s:g} s")
            self._client.spin_for(0.002)
        return True

    def run(self, takeovers: int) -> dict[str, float]:
        waits: list[float] = []
        for episode in range(takeovers):
            name, seed = f"bench-{episode}", SEED + 9 + episode
            self._sent.append([])
            self._client.start("deployment", seed=seed, episode_id=name, policy_id=self._policy)
            if episode == 0:  # what is needed for the first time takes longer
                self._client.spin_for(1.0)
                for ways in self._ways.values():
                    ways.clear()
                self._decisions.clear()
            self._take_over(waits, takeovers)
            self._client.spin_for(1.2)  # the newest report
            if self._client.running:
                self._client.end("aborted", discard=True)
            if len(waits) >= takeovers:
                break
        return self._result(waits)

    def _take_over(self, waits: list[float], wanted: int) -> None:
        """Again and again, at any moment between two steps, until the episode ends."""
        rng = np.random.default_rng(len(waits))
        request = interface("std_srvs/srv/Trigger").Request()
        while len(waits) < wanted and self._until(Mode.POLICY):
            self._client.spin_for(float(rng.uniform(0.3, 0.6)))
            pressed = time.monotonic_ns()
            self._force.call_async(request)
            if not self._until(Mode.HUMAN):
                return
            waits.append((self._human_ns - pressed) * 1e-6)
            self._client.spin_for(float(rng.uniform(0.3, 0.6)))
            self._toggle.call_async(request)

    def _result(self, waits: list[float]) -> dict[str, float]:
        command, chunk = (np.array(self._ways[topic]) for topic in DIRECT)
        latency = [
            float(np.percentile(command, q) + np.percentile(chunk, q))
            + float(np.percentile(self._decisions, q))
            for q in (50, 99)
        ]
        intervals = np.concatenate([np.diff(sent) for sent in self._sent])
        jitter = np.abs(intervals - STEP_NS) * 1e-6
        return {
            "jitter_p50_ms": round(float(np.percentile(jitter, 50)), 3),
            "jitter_p99_ms": round(float(np.percentile(jitter, 99)), 3),
            "command_latency_p50_ms": round(latency[0], 3),
            "command_latency_p99_ms": round(latency[1], 3),
            "command_way_p99_ms": round(float(np.percentile(command, 99)), 3),
            "chunk_way_p99_ms": round(float(np.percentile(chunk, 99)), 3),
            "decision_p99_ms": round(float(np.percentile(self._decisions, 99)), 3),
            "takeover_p50_ms": round(float(np.percentile(waits, 50)), 3),
            "takeover_p99_ms": round(float(np.percentile(waits, 99)), 3),
            "steps": len(command),
            "takeovers": len(waits),
            "realtime": float(self.scheduling == "fifo"),
        }
