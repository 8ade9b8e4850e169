"""What goes wrong with the streams of a recording while it can still be helped."""

from __future__ import annotations

from collections.abc import Mapping

from dexpie_ros.episodes.statistics import StreamStatistics
from dexpie_ros.episodes.writer import EpisodeWriter

QUIET_S = 2.0
"""Nothing at all for so long, and something is wrong with the graph or the network."""
_BEGIN_NS = 2_000_000_000
"""So long after the start every stream has said something."""
_OPTIONAL = ("/teleop/",)
"""Devices that may be missing: a policy drives without an operator."""


class Watch:
    """Says once when a stream falls silent, never speaks or loses messages, and again after it had
    recovered. ``begin_ns``: when the episode begins; 0: with the first message.
    """

    def __init__(self, writer: EpisodeWriter, begin_ns: int = 0) -> None:
        self._writer, self._begin_ns = writer, begin_ns
        self._lost: dict[str, int] = {}
        self._told: set[str] = set()
        """Of what is by somebody's choice, most likely: said once, and no trouble."""
        self.wrong: dict[str, str] = {}
        """By topic or resource: what was wrong at the last look."""

    def look(
        self,
        now_ns: int,
        queue_dropped: int,
        resources: Mapping[str, str] | None = None,
        idle_s: float = 0.0,
    ) -> list[str]:
        """What is wrong since the last look. ``now_ns``: when the newest message was logged, and
        ``idle_s`` for how long none has come since; ``resources``: what else is wrong, by name.
        """
        self._begin_ns = self._begin_ns or now_ns
        said = dict(resources or {})
        if idle_s >= QUIET_S:
            said["all"] = f"no message on any topic for {idle_s:.1f} s"
        missing = []
        for name, stream in self._writer.streams.items():
            lost = stream.dropped - self._lost.get(name, 0)
            if stream.late(now_ns):
                said[name] = f"{name}: silent for {stream.silent_ns(now_ns) / 1e9:.1f} s"
            elif lost > 0:
                said[name] = f"{name}: {lost} messages lost within a second"
            elif self._never_spoke(stream, now_ns):
                if name.startswith(_OPTIONAL):
                    missing.append(name)
                else:
                    said[name] = f"{name}: nothing yet, {self._since(now_ns):.1f} s after the start"
            self._lost[name] = stream.dropped
        lost = queue_dropped - self._lost.get("", 0)
        if lost:
            said[""] = f"{lost} messages dropped: the disk is too slow"
        self._lost[""] = queue_dropped
        news = [message for name, message in said.items() if name not in self.wrong]
        self.wrong = said
        return news + self._once(missing)

    def _never_spoke(self, stream: StreamStatistics, now_ns: int) -> bool:
        patience = max(_BEGIN_NS, 5 * stream.period_ns)
        return bool(stream.period_ns and not stream.received and now_ns - self._begin_ns > patience)

    def _since(self, now_ns: int) -> float:
        return (now_ns - self._begin_ns) / 1e9

    def _once(self, missing: list[str]) -> list[str]:
        news = []
        fresh = [name for name in missing if name not in self._told]
        if fresh:
            self._told.update(fresh)
            news.append(f"nothing on {', '.join(fresh)}: no teleoperation in this episode?")
        for name, stream in self._writer.streams.items():
            if stream.slow and f"{name} slow" not in self._told:
                self._told.add(f"{name} slow")
                news.append(f"{name}: {stream.slow}")
        return news
