"""When to infer, from which observation, with which prefix (docs/policy.md#when-the-policy-is-asked).

Pure and deterministic: the same control steps and observations give the same chunks, bit for bit.
Whoever calls :meth:`AsyncPolicy.step` decides when the chunk arrives: the lockstep runner after so
many ticks of virtual time, the policy server after the time that it really took.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.control.types import STEP_NS, Chunk, Command, ControlStep, Mode, Observation
from dexpie_ros.geometry import matrix_to_quaternion
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.settings import InferenceSettings

_KEPT_LATENCIES = 10_000


@config
class AsyncConfig:
    """How inference and execution overlap."""

    max_delay: Annotated[int, Field(ge=0)] = 4
    """n: the prefix is never longer, and no result should take longer (steps)."""
    execution_horizon: Annotated[int, Field(ge=1)] = 20
    """s: actions of a chunk that pass before the next observation is used; d <= H - s."""
    mode: Literal["async", "sync"] = "async"
    """sync: infer when the chunk has run out, without a prefix; the robot waits (ablation)."""


@dataclass(frozen=True)
class AsyncStatistics:
    """Latency of inference in ms over the newest calls, and what the prefixes were."""

    inferences: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    prefix_length: int = 0
    """Of the newest inference."""
    mean_prefix_length: float = 0.0
    lost: int = 0
    """Chunks that were never executed because they came too late or never arrived."""


class AsyncPolicy:
    """Turns control steps into chunks: asks, anchors, samples, remembers what is under way."""

    def __init__(
        self, policy: Policy, config: AsyncConfig, settings: InferenceSettings | None = None
    ) -> None:
        horizon, trained = policy.horizon, policy.config.prefix.max_delay
        if config.mode == "async" and config.max_delay > horizon - config.execution_horizon:
            raise ValueError(
                f"max_delay {config.max_delay} exceeds H - s = {horizon} - "
                f"{config.execution_horizon}; lower execution_horizon or max_delay"
            )
        if config.mode == "async" and config.max_delay > trained:
            raise ValueError(
                f"max_delay {config.max_delay}, but the policy was trained with prefixes up to "
                f"{trained}; lower max_delay or train with prefix.max_delay={config.max_delay}"
            )
        self.policy, self.config = policy, config
        self.settings = settings or policy.config.inference
        if self.settings.steps > policy.config.diffusion.train_steps:
            raise ValueError(
                f"steps {self.settings.steps} exceeds diffusion.train_steps = "
                f"{policy.config.diffusion.train_steps} of the policy; lower it"
            )
        self._latencies: deque[float] = deque(maxlen=_KEPT_LATENCIES)
        self._inferences = self._prefix_sum = self._prefix_last = self._lost = 0
        policy.warm_up()
        self.reset(0)

    def reset(self, episode_seed: int, start_time_ns: int | None = None) -> None:
        """A new episode: forget what was under way; noise follows from the seed and the steps."""
        self._seed, self._start = episode_seed, start_time_ns
        self._mode = Mode.HOLD
        self._asked_ns: int | None = None
        """Stamp of the newest chunk, while it has not been seen executing."""
        self._last_ns: int | None = None

    def step(
        self,
        step: ControlStep,
        observation: Observation | Callable[[], Observation],
        episode_seed: int | None = None,
    ) -> Chunk | None:
        """The chunk that this tick asks for, or None. ``observation`` is this tick's; where it
        costs something (pictures to render), a function, called only when it is needed.

        Raises ObservationError where the observation lacks what the policy was trained on.
        """
        if episode_seed is not None and episode_seed != self._seed:
            self.reset(episode_seed, step.time_ns)
        if self._start is None:
            self._start = step.time_ns
        before, self._mode = self._mode, step.mode
        if not self._wants(step, before):
            return None
        prefix: tuple[Command, ...] = ()
        if self.config.mode == "async" and step.mode != Mode.HUMAN:
            prefix = step.upcoming[: self.config.max_delay]
        seen = observation() if callable(observation) else observation
        chunk = self._infer(seen, step.time_ns, prefix)
        self._asked_ns = self._last_ns = chunk.time_ns
        return chunk

    def arrived(self, chunk: Chunk, time_ns: int) -> Chunk:
        """What shall be executed when ``chunk`` is ready at ``time_ns``.

        Asynchronous: the chunk itself, its actions keep their absolute times. Synchronous: the
        robot has waited, so the first action becomes due at the first tick not before ``time_ns``.
        """
        if self.config.mode == "async":
            return chunk
        waited = -(-max(time_ns - chunk.time_ns, 0) // STEP_NS)
        moved = replace(chunk, time_ns=chunk.time_ns + waited * STEP_NS)
        if self._asked_ns == chunk.time_ns:
            self._asked_ns = moved.time_ns
        return moved

    def statistics(self) -> AsyncStatistics:
        """Figures for /policy/status."""
        if not self._latencies:
            return AsyncStatistics(lost=self._lost)
        p50, p95, p99 = np.percentile(np.array(self._latencies) * 1e3, [50, 95, 99])
        mean = self._prefix_sum / self._inferences
        return AsyncStatistics(
            self._inferences,
            float(p50),
            float(p95),
            float(p99),
            self._prefix_last,
            mean,
            self._lost,
        )

    def delay_steps(self, percentile: float = 99.0) -> int:
        """The measured delay of inference in steps at a percentile, rounded up."""
        if not self._latencies:
            return 0
        seconds = float(np.percentile(np.array(self._latencies), percentile))
        return int(np.ceil(seconds * 1e9 / STEP_NS))

    def _wants(self, step: ControlStep, before: Mode) -> bool:
        """Whether this tick starts an inference; ``before`` is the mode of the last tick."""
        entered = step.mode != before
        if step.mode == Mode.HUMAN:
            # The human drives: a fresh proposal now and then, for the record.
            since = self.config.execution_horizon * STEP_NS
            return entered or self._last_ns is None or step.time_ns - self._last_ns >= since
        if step.mode not in (Mode.POLICY, Mode.HANDING_BACK):
            return False
        if entered and before != Mode.HANDING_BACK:
            # The arbiter waits for a chunk planned from here: whatever was under way is void.
            self._asked_ns = None
            if step.mode == Mode.HANDING_BACK:
                return True
        if self._under_way(step):
            return False
        if self.config.mode == "sync":
            return step.remaining == 0
        return step.remaining <= self.policy.horizon - self.config.execution_horizon

    def _under_way(self, step: ControlStep) -> bool:
        """Whether a chunk that was asked for has neither been adopted nor become useless."""
        if self._asked_ns is None:
            return False
        adopted = step.chunk_time_ns >= self._asked_ns
        useless = step.time_ns - self._asked_ns >= self.policy.horizon * STEP_NS
        if adopted or useless:
            self._lost += not adopted
            self._asked_ns = None
            return False
        return True

    def _infer(self, observation: Observation, time_ns: int, prefix: tuple[Command, ...]) -> Chunk:
        began = time.perf_counter()
        vector, pictures = self.policy.observe(observation)
        assert self._start is not None
        steps = max(round((time_ns - self._start) / STEP_NS), 0)
        tcp, hand = self.policy.sample(
            vector,
            observation.robot.tcp.matrix(),
            pictures,
            prefix,
            seed=(abs(self._seed), steps),
            settings=self.settings,
        )
        positions, quaternions = tcp[:, :3, 3].copy(), matrix_to_quaternion(tcp[:, :3, :3])
        for index, command in enumerate(prefix):
            # A matrix would round the quaternion: what executes and what repeats it are equal.
            positions[index], quaternions[index] = command.tcp.position, command.tcp.quaternion
        latency = time.perf_counter() - began
        self._latencies.append(latency)
        self._inferences += 1
        self._prefix_sum += len(prefix)
        self._prefix_last = len(prefix)
        return Chunk(
            time_ns=time_ns,
            positions=positions,
            quaternions=quaternions,
            hand=hand,
            prefix_length=len(prefix),
            latency_ns=int(latency * 1e9),
            policy_id=self.policy.policy_id,
        )
