"""`dexpie monitor`: what a running graph says of itself, live, in a terminal.

Rates and ages of the topics, health and timing of the nodes. It only listens; images are left out
unless asked for, for a simulated camera renders only for those who listen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dexpie_ros import contract
from dexpie_ros.control.staleness import Health, StalenessMonitor, StreamConfig

if TYPE_CHECKING:
    from rich.console import Group

LEVELS = ("ok", "WARN", "ERROR", "stale")
COLOURS = ("green", "yellow", "red", "magenta")
SHOWN = (
    "_p99_ms", "_p99_steps", "missed", "stalls", "inferences", "lost_chunks", "skipped", "recorded",
    "interventions",
)  # fmt: skip
"""Endings of the figures that are shown; all of them are on /diagnostics."""
SILENT_S = 3.0
DISCOVERY_S = 5.0
"""How long a graph may take to be found before the seconds of ``--once`` begin."""


def add_parser(groups: Any) -> None:
    """Add the command ``monitor``."""
    parser = groups.add_parser("monitor", help="topics, nodes and timing of a running graph, live")
    parser.add_argument("--images", action="store_true", help="also the cameras")
    parser.add_argument(
        "--once", type=float, default=0.0, metavar="S", help="look for S seconds, print, leave"
    )
    parser.set_defaults(run=_run)


class GraphView:
    """What has been heard; times of a monotonic clock in ns."""

    def __init__(self, topics: tuple[contract.Topic, ...]) -> None:
        self.topics = {topic.name: topic for topic in topics}
        self.simulated = False
        self.arbiter = self.session = "silent"
        self.nodes: dict[str, tuple[int, int, str, dict[str, str]]] = {}
        """Name -> when, level, message, values."""
        self._streams = StalenessMonitor(
            StreamConfig(name, limit_s=1.0, needed=False) for name in self.topics
        )

    def seen(self, topic: str, now_ns: int) -> None:
        self._streams.seen(topic, now_ns)

    def diagnosed(self, name: str, level: int, text: str, values: dict[str, str], now: int) -> None:
        """A status of /diagnostics."""
        self.nodes[name] = (now, level, text, values)

    def topic_rows(self, now_ns: int) -> list[tuple[str, str, str, str, str]]:
        """Name, rate, nominal rate, age and judgement of every topic that was ever heard."""
        rows = []
        for stream in self._streams.status(now_ns):
            topic = self.topics[stream.name]
            nominal = topic.simulated_rate_hz if self.simulated else topic.rate_hz
            if stream.health is Health.MISSING:
                if nominal:
                    rows.append((stream.name, "-", f"{nominal:g}", "-", "never came"))
                continue
            word = ""
            if nominal and stream.age_s > max(0.5, 5 / nominal):
                word = "silent"
            elif nominal and stream.rate_hz < 0.8 * nominal:
                word = "slow"
            rate = f"{stream.rate_hz:.1f}" if nominal else ""
            shown = f"{nominal:g}" if nominal else "on change"
            rows.append((stream.name, rate, shown, f"{stream.age_s:.2f} s", word))
        return rows

    def node_rows(self, now_ns: int) -> list[tuple[str, int, str, str]]:
        """Name, level (3: silent), message and figures of every node that ever reported."""
        rows = []
        for name, (when, level, text, values) in sorted(self.nodes.items()):
            if (now_ns - when) * 1e-9 > SILENT_S:
                level, text = 3, f"silent for {(now_ns - when) * 1e-9:.0f} s"
            figures = "  ".join(f"{k} {v}" for k, v in values.items() if k.endswith(SHOWN))
            rows.append((name, level, text, figures))
        return rows


def render(view: GraphView, now_ns: int) -> Group:
    """The view as tables."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    topics = Table("topic", "Hz", "nominal", "age", "", title="", expand=True)
    for name, rate, nominal, age, word in view.topic_rows(now_ns):
        topics.add_row(name, rate, nominal, age, Text(word, style="red" if word else ""))
    nodes = Table("node", "", "says", "figures", expand=True)
    for name, level, text, figures in view.node_rows(now_ns):
        nodes.add_row(Text(name), Text(LEVELS[level], style=COLOURS[level]), Text(text), figures)
    heading = Text(f"arbiter: {view.arbiter}\nsession: {view.session}", style="bold")
    return Group(heading, topics, nodes)


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with _Listener(options.images) as listener:
        if options.once:
            listener.spin(DISCOVERY_S, until_heard=True)
            listener.spin(options.once)
            console.print(render(listener.view, time.monotonic_ns()))
            return 0 if listener.view.nodes else 1
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            try:
                while True:
                    listener.spin(0.5)
                    live.update(render(listener.view, time.monotonic_ns()), refresh=True)
            except KeyboardInterrupt:
                return 0


class _Listener:
    """A node that hears everything and says nothing."""

    def __init__(self, images: bool) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from dexpie_ros.nodes.base import ContractNode
        from dexpie_ros.runtime import prepare_process

        self.view = GraphView(
            tuple(t for t in contract.TOPICS if images or not t.type.endswith("Image"))
        )
        prepare_process(images=images)
        rclpy.init()
        self._node = ContractNode("monitor")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        decoded: dict[str, Callable[[Any], None]] = {
            "/diagnostics": self._on_diagnostics,
            "/intervention/state": self._on_arbiter,
            "/session/state": self._on_session,
        }
        for name in self.view.topics:
            read = decoded.get(name, lambda _: None)

            def heard(message: Any, name: str = name, read: Callable[[Any], None] = read) -> None:
                self.view.seen(name, time.monotonic_ns())
                read(message)

            self._node.subscribe(name, heard, raw=name not in decoded)

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *_: object) -> None:
        import rclpy

        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def spin(self, seconds: float, until_heard: bool = False) -> None:
        """Listen for so long, or until a node has reported."""
        from dexpie_ros.runtime import spin_for

        spin_for(self._executor, seconds, lambda: until_heard and bool(self.view.nodes))
        self.view.simulated = self._node.count_publishers("/simulation/state") > 0

    def _on_diagnostics(self, message: Any) -> None:
        from dexpie_ros.nodes.base import status_level

        for status in message.status:
            values = {value.key: value.value for value in status.values}
            now = time.monotonic_ns()
            self.view.diagnosed(status.name, status_level(status), status.message, values, now)

    def _on_arbiter(self, message: Any) -> None:
        from dexpie_ros.control.types import Mode

        self.view.arbiter = f"{Mode(message.mode).name}  {message.reason}"

    def _on_session(self, message: Any) -> None:
        phase = ("idle", "preparing", "running", "finishing")[message.phase]
        episode = f"  {message.kind} {message.episode_id}" if message.phase else ""
        self.view.session = f"{phase}{episode}  ({message.recorded} recorded)"
