"""Recorded topics on a live graph, in time: `dexpie episodes replay ID`.

Nothing that is played here can move a robot: a topic that somebody else publishes, or that the
arbiter or a driver listens to, or beside them the policy server or the operator's nodes, is refused
under its own name (``prefix`` gives it another). Moving the robot is `replay_execute`'s business,
through the arbiter.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from dexpie_ros.contract import BY_NAME, Qos
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.replay import Recorded, Replay
from dexpie_ros.nodes.base import ContractNode, interface
from dexpie_ros.runtime import prepare_process, qos_profile

MOVERS = frozenset({"intervention_arbiter", "arm_driver", "hand_driver", "simulated_cell"})
"""Nodes that move something when they hear what they listen to."""
RELAYS = frozenset({"policy_server", "teleop", "tracker_driver", "session", "simulated_operator"})
"""Nodes that, where there is one of those, move it when they hear what they listen to."""
_PREFIX = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)*")
DISCOVERY_S = 1.5
CLOCK_S = 0.02
DEPTH = 1000
"""Messages that a listener may fall behind; a bag at 50 times its speed comes in bursts."""


class GraphReplay:
    """A node that publishes what ``player`` plays; as a context manager, one per process.

    ``prefix``: before every topic's name, for instance ``/replay``. ``clock``: also /clock, with the
    time of the recording. EpisodeError names the topics that may not be published.
    """

    def __init__(self, player: Replay, *, prefix: str = "", clock: bool = False) -> None:
        self.player, self._prefix = player, prefix.rstrip("/")
        if not _PREFIX.fullmatch(self._prefix):
            raise EpisodeError(f"--prefix {prefix}: no beginning of a topic's name; e.g. /replay")
        self.left_out: dict[str, str] = {}
        """Topics whose message type is not installed here, with the type."""
        self.published = 0
        self._failure: Exception | None = None
        prepare_process(images=True)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C is the caller's
        self.node = ContractNode("replay")
        try:
            self._outputs = self._advertise(clock)
        except BaseException:
            self.close()
            raise

    def _advertise(self, clock: bool) -> dict[str, Any]:
        types = {}
        for topic, kind in self.player.types.items():
            try:
                types[topic] = interface(kind)
            except (ImportError, AttributeError, ValueError):
                self.left_out[topic] = kind
        if not types:
            raise EpisodeError(f"no message type of this bag is installed: {self.left_out}")
        self._names = {topic: self._prefix + topic for topic in types}
        self._clock_name = "/clock" if clock else ""
        time.sleep(DISCOVERY_S)
        self._refuse_conflicts(own=False)
        outputs = {}
        for topic, cls in types.items():
            row = BY_NAME.get(topic)
            state = row is not None and row.qos is Qos.STATE
            qos = qos_profile(row.qos if row else Qos.EVENT, depth=1 if state else DEPTH)
            outputs[topic] = self.node.create_publisher(cls, self._names[topic], qos)
        self._clock = self.node.publisher("/clock") if clock else None
        return outputs

    def _refuse_conflicts(self, own: bool) -> None:
        """``own``: this node publishes already. EpisodeError says what is in the way."""
        problems = []
        beside = MOVERS & set(self.node.get_node_names())
        moving = MOVERS | RELAYS if beside else MOVERS
        for name in filter(None, (*self._names.values(), self._clock_name)):
            others = self.node.count_publishers(name) - own
            listeners = self.node.get_subscriptions_info_by_topic(name)
            movers = sorted({info.node_name for info in listeners} & moving)
            if name == self._clock_name:
                movers = []  # time itself moves nothing
            if others > 0:
                problems.append(f"{name} (somebody publishes it)")
            elif movers:
                problems.append(f"{name} ({', '.join(movers)} acts on it)")
        if problems:
            raise EpisodeError(
                f"not played beside this graph: {'; '.join(problems)}. Play under other names "
                "(--prefix /replay), only other topics (--topic), or stop the graph; to move the "
                "robot as recorded: --execute"
            )

    def __enter__(self) -> GraphReplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop playing and leave the graph."""
        self.player.stop()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def run(self, tend: Callable[[], None] = lambda: None, wait_s: float = 0.5) -> int:
        """Play until the end or until the player is stopped; gives how many messages went out.

        ``tend`` is called 50 times a second meanwhile, from this thread: keys, a display.
        ``wait_s``: for listeners to find the topics before the first message.
        """
        time.sleep(wait_s)
        thread = threading.Thread(target=self._play, name="replay")
        thread.start()
        checked = time.monotonic()
        try:
            while thread.is_alive():
                if self._clock is not None:
                    self._publish_clock()
                tend()
                if time.monotonic() - checked > 1.0:
                    checked = time.monotonic()
                    self._refuse_conflicts(own=True)
                thread.join(CLOCK_S)
        finally:
            self.player.stop()
            thread.join()
        if self._failure is not None:
            raise self._failure
        return self.published

    def _play(self) -> None:
        try:
            self.player.run(self._publish)
        except Exception as error:  # noqa: BLE001  raised where run was called
            self._failure = error

    def _publish(self, recorded: Recorded) -> None:
        output = self._outputs.get(recorded.topic)
        if output is not None:
            output.publish(recorded.cdr)
            self.published += 1

    def _publish_clock(self) -> None:
        assert self._clock is not None
        position = min(self.player.position_s, self.player.duration_s)
        now_ns = self.player.start_ns + round(position * 1e9)
        self._clock.publish(self.node.messages.clock(now_ns))
