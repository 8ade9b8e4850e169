"""A pair of eyes and hands on the running graph, for the Live page. The only module here with ROS.

One thread with one SingleThreadedExecutor owns everything of ROS; requests read what it noted, and
what they want to call waits in a queue for it. Nobody looks: :meth:`LiveGraph.stop` frees it all.
"""

from __future__ import annotations

import importlib
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from dexpie_ros import contract
from dexpie_ros.asking import Asking, Requests
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.keys import SERVICES, Action
from dexpie_ros.control.panel import PanelState, panel_lines, read_progress
from dexpie_ros.control.staleness import StalenessMonitor, StreamConfig
from dexpie_ros.control.types import Mode
from dexpie_ros.runtime import prepare_process, qos_profile
from dexpie_ros.web.start_overlay import StartPicture, planned_start

PHASES = ("idle", "preparing", "running", "finishing")
WATCHED = tuple(
    topic.name
    for topic in contract.TOPICS
    if topic.simulated_rate_hz > 0
    and topic.recorded
    and not topic.name.endswith("/camera_info")
    and topic.name not in ("/diagnostics", "/simulation/state")
)
"""Streams with a rate: their health is shown."""
PATIENCE_S = 60.0
"""The end of an episode takes its time: its bag is closed."""
_SILENT_S = 1.0
_WIDE = 240
"""characters: the page breaks lines by itself"""
_FORGET_S = 5.0
"""Complaints that are not repeated for so long are over (diagnostics come once a second)."""


class LiveError(RuntimeError):
    """The graph refused or does not answer; the message says what to look at."""


class LiveGraph:
    """Subscribes and calls in a thread of its own from construction until :meth:`stop`."""

    def __init__(self) -> None:
        prepare_process()
        self._lock = threading.Lock()
        self._monitor = StalenessMonitor(
            StreamConfig(name=name, limit_s=_SILENT_S, needed=False) for name in WATCHED
        )
        self._newest: dict[str, Any] = {}
        self._began = 0.0
        """When this page saw the running episode begin; 0 without one."""
        self._arrived: dict[str, float] = {}
        self._pictures: dict[str, tuple[int, bytes]] = {}
        self._complaints: dict[str, tuple[float, int, str]] = {}
        self._orders: queue.Queue[tuple[str, Any, Future]] = queue.Queue()
        self._asked: Requests[Future] = Requests()
        """What was sent and is not answered yet; the thread's own."""
        self._stop = threading.Event()
        self._context = Context()
        # The web server's Ctrl-C must stay its own.
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("web_page", context=self._context)
        self._subscribe_all()
        self._clients: dict[str, Any] = {
            name: self._node.create_client(_interface(contract.SERVICES[name]), name)
            for name in (
                *SERVICES.values(),
                "/intervention/set",
                "/session/end_episode",
            )
        }
        self._thread = threading.Thread(target=self._run, name="live graph", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the graph; harmless to call twice."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    # -- what requests ask ---------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Everything that the page shows, as plain values."""
        now = time.monotonic()
        with self._lock:
            streams = self._monitor.status(time.monotonic_ns())
            step, session = self._newest.get("/control/step"), self._newest.get("/session/state")
            arbiter = self._newest.get("/intervention/state")
            plan = self._newest.get("/session/plan")
            began = self._began
            alignment = _alignment(self._newest.get("/teleop/alignment"))
            complaints = [
                {"name": name, "level": level, "message": text}
                for name, (at, level, text) in sorted(self._complaints.items())
                if now - at < _FORGET_S
            ]
            heard = any(now - at < 3 * _SILENT_S for at in self._arrived.values())
            pictures = {name: number for name, (number, _) in self._pictures.items()}
        # The arbiter's state comes on change; its steps tell that it is alive.
        alive = any(s.name == "/control/step" and s.usable for s in streams)
        mode = Mode(step.mode) if alive and step is not None else None
        phase = PHASES[session.phase] if session is not None and session.phase < 4 else "unknown"
        prompt, progress = read_progress(plan.data) if plan is not None else ("", ())
        panel = PanelState(
            prompt=prompt,
            progress=progress,
            elapsed_s=now - began if began else 0.0,
            mode=mode,
            reason=arbiter.reason if arbiter is not None and alive else "",
            interventions=int(arbiter.interventions) if arbiter is not None else 0,
            phase=phase,
            episode_id=session.episode_id if session is not None and session.phase else "",
            alignment=alignment,
            streams=[s for s in streams if math.isfinite(s.age_s)],
        )
        return {
            "heard": heard,
            "mode": None if mode is None else mode.name.lower().replace("_", " "),
            "reason": panel.reason,
            "phase": phase,
            "episode": panel.episode_id,
            "kind": session.kind if session is not None else "",
            "task": session.task if session is not None else "",
            "stage": session.stage if session is not None else "",
            "recorded": int(session.recorded) if session is not None else 0,
            "interventions": panel.interventions,
            "aligned": None if alignment is None else alignment.aligned,
            "alignment": "" if alignment is None else alignment.describe(),
            "panel": panel_lines(panel, width=_WIDE),
            "streams": [
                {
                    "name": s.name,
                    "health": s.health.name.lower(),
                    "age": round(s.age_s, 2) if math.isfinite(s.age_s) else None,
                    "rate": round(s.rate_hz, 1),
                    "nominal": contract.BY_NAME[s.name].rate_hz,
                }
                for s in streams
            ],
            "complaints": complaints,
            "pictures": pictures,
        }

    def start(self) -> StartPicture | None:
        """The start that the session wants to be restored, where it has a picture of it."""
        with self._lock:
            plan = self._newest.get("/session/plan")
        return None if plan is None else planned_start(plan.data)

    def picture(self, camera: str) -> bytes | None:
        """The newest JPEG of a camera."""
        with self._lock:
            found = self._pictures.get(camera)
        return None if found is None else found[1]

    def act(self, action: Action) -> str:
        """What a key of the terminal does; LiveError with the reason if it is refused."""
        return self._ask(SERVICES[action])

    def take_over(self) -> str:
        """The operator drives; unlike the toggle, twice is not back again."""
        return self._ask("/intervention/set", data=True)

    def give_back(self) -> str:
        return self._ask("/intervention/set", data=False)

    def end(self, outcome: str, cause: str = "") -> str:
        return self._ask("/session/end_episode", outcome=outcome, cause=cause)

    def _ask(self, service: str, **fields: Any) -> str:
        request = _interface(contract.SERVICES[service]).Request(**fields)
        future: Future = Future()
        self._orders.put((service, request, future))
        try:
            answer = future.result(timeout=2 * PATIENCE_S)  # it is given up earlier, if it was sent
        except FutureTimeout:
            raise LiveError(f"{service} was not asked: the Live page's own thread hangs") from None
        if not answer.success:
            raise LiveError(answer.message or f"{service} refused")
        return str(answer.message)

    # -- the ROS thread ------------------------------------------------------------------------
    def _run(self) -> None:
        executor = SingleThreadedExecutor(context=self._context)
        executor.add_node(self._node)
        try:
            while not self._stop.is_set():
                executor.spin_once(timeout_sec=0.05)
                self._send_orders()
                self._look_for_answers()
        finally:
            executor.shutdown(timeout_sec=1.0)
            self._node.destroy_node()
            rclpy.try_shutdown(context=self._context)
            left = [future for _, future in self._asked]
            while not self._orders.empty():
                left.append(self._orders.get()[2])
            for future in left:
                future.set_exception(LiveError("the Live page was closed"))

    def _send_orders(self) -> None:
        while not self._orders.empty():
            service, request, future = self._orders.get()
            client = self._clients[service]
            if not client.service_is_ready():
                future.set_exception(LiveError(f"{service} is not there; is its node running?"))
                continue
            if service == SERVICES[Action.CLEAR_FAULT]:  # no stop of before must come after it
                self._asked.insist_no_more()
            insist = service == SERVICES[Action.EMERGENCY_STOP]
            asked = Asking(client, request, time.monotonic(), PATIENCE_S, insist)
            self._asked.append((asked, future))

    def _look_for_answers(self) -> None:
        for asked, future in self._asked.take_ended(time.monotonic()):
            if (answer := asked.answer) is None:
                future.set_exception(LiveError(asked.silence))
            else:
                future.set_result(answer)

    def _subscribe_all(self) -> None:
        for name in WATCHED:
            if name.endswith("/compressed"):
                self._subscribe(name, self._on_picture(name.split("/")[2]))
            else:
                # Only counted, unless it is shown: not worth unpacking.
                shown = name in ("/control/step", "/teleop/alignment")
                self._subscribe(name, None, raw=not shown)
        self._subscribe("/intervention/state", None)
        self._subscribe("/session/state", None)
        self._subscribe("/session/plan", None)
        self._subscribe("/diagnostics", self._on_diagnostics)

    def _subscribe(self, name: str, more: Callable[[Any], None] | None, raw: bool = False) -> None:
        row = contract.BY_NAME[name]
        watched = name in WATCHED

        def arrived(message: Any) -> None:
            with self._lock:
                self._arrived[name] = time.monotonic()
                if watched:
                    self._monitor.seen(name, time.monotonic_ns())
                if not raw and more is None:
                    self._newest[name] = message
                    if name == "/session/state":
                        running = message.phase == PHASES.index("running")
                        self._began = (self._began or time.monotonic()) if running else 0.0
                if more is not None:
                    more(message)

        best_effort = row.qos in (contract.Qos.SENSOR, contract.Qos.COMMAND)
        profile = qos_profile(row.qos, best_effort=best_effort)
        self._node.create_subscription(_interface(row.type), name, arrived, profile, raw=raw)

    def _on_picture(self, camera: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            number = self._pictures.get(camera, (0, b""))[0] + 1
            self._pictures[camera] = (number, bytes(message.data))

        return keep

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            if level:
                self._complaints[status.name] = (time.monotonic(), level, status.message)
            else:
                self._complaints.pop(status.name, None)


def _alignment(message: Any) -> Alignment | None:
    return None if message is None else Alignment.heard(message)


def _interface(name: str) -> Any:
    package, kind, cls = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), cls)
