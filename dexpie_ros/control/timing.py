"""How well the loop keeps time: jitter of the control steps, latencies, takeover.

Cheap enough for every step; kept with every episode, shown live, and measured by the benchmark under
the same names.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from dexpie_ros.control.types import STEP_NS, ControlStep, Mode, Source

WINDOW = 3000
"""Samples kept of each figure: two minutes of control steps."""


class TimingMonitor:
    """Collects durations by name in ms; `jitter`, `command_latency` and `takeover` by definition.

    Times are of a monotonic clock, for simulated time says nothing about the machine.
    """

    def __init__(self, step_ns: int = STEP_NS) -> None:
        self._step_ns = step_ns
        self._samples: dict[str, deque[float]] = {}
        self._last_ns: int | None = None
        self._toggled_ns: int | None = None
        self._chunk_way: float | None = None
        self._decided: tuple[int, float] | None = None

    def sample(self, name: str, milliseconds: float) -> None:
        """One duration of ``name``, ms."""
        self._samples.setdefault(name, deque(maxlen=WINDOW)).append(milliseconds)

    def stepped(self, step: ControlStep, now_ns: int) -> None:
        """A control step was published at ``now_ns``: jitter, and the end of a takeover."""
        if self._last_ns is not None:
            self.sample("jitter", abs(now_ns - self._last_ns - self._step_ns) * 1e-6)
        self._last_ns = now_ns
        if self._toggled_ns is not None and step.mode is Mode.HUMAN:
            self.sample("takeover", (now_ns - self._toggled_ns) * 1e-6)
            self._toggled_ns = None

    def toggled(self, now_ns: int) -> None:
        """A takeover was accepted at ``now_ns``."""
        self._toggled_ns = now_ns

    def aligned(self, aligned: bool, now_ns: int) -> None:
        """While the arbiter waits for it: whether the operator is aligned; a takeover follows."""
        if not aligned:
            self._toggled_ns = None
        elif self._toggled_ns is None:
            self._toggled_ns = now_ns

    def chunk_arrived(self, way_ms: float) -> None:
        """A chunk of the policy was so long on its way."""
        self.sample("chunk_way", way_ms)
        self._chunk_way = way_ms

    def decided(self, step: ControlStep, milliseconds: float) -> None:
        """The command of ``step`` was published so long after what it needed was there."""
        self.sample("decision", milliseconds)
        self._decided = (step.tick, milliseconds) if step.source is Source.POLICY else None

    def command_arrived(self, tick: int, way_ms: float) -> None:
        """The command of ``tick`` was so long on its way to who listens.

        `command_latency`, policy output -> driver without the wait for the step at which an action
        is due: the chunk's way, the decision and the command's way.
        """
        self.sample("command_way", way_ms)
        if self._decided is not None and self._decided[0] == tick and self._chunk_way is not None:
            self.sample("command_latency", self._chunk_way + self._decided[1] + way_ms)

    def pause(self) -> None:
        """The loop stands still on purpose: the next interval is no jitter."""
        self._last_ns = self._decided = None

    def clear(self) -> None:
        """A new episode: nothing is kept."""
        self._samples.clear()
        self._chunk_way = None
        self.pause()

    def as_dict(self) -> dict[str, float]:
        """``<name>_p50_ms``, ``_p99_ms``, ``_max_ms`` and ``_count`` of everything sampled."""
        figures: dict[str, float] = {}
        for name, samples in self._samples.items():
            values = np.fromiter(samples, np.float64)
            p50, p99 = np.percentile(values, [50, 99])
            figures[f"{name}_p50_ms"], figures[f"{name}_p99_ms"] = float(p50), float(p99)
            figures[f"{name}_max_ms"] = float(values.max())
            figures[f"{name}_count"] = len(values)
        return figures
