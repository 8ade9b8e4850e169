"""The MuJoCo cell in place of arm, hand and camera drivers: same topics, and /clock.

In lockstep the world waits for the command of every control step, so a run does not depend on how
fast the machine is; otherwise it goes on with the last command, as a robot would.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any

from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.control.types import STEP_NS, Command
from dexpie_ros.messages import read_command, stamp_ns
from dexpie_ros.nodes.base import ERROR, OK, ContractNode
from dexpie_ros.realtime import preferred_thread
from dexpie_ros.runtime import abort, declare_config, run_node
from dexpie_ros.simulation.cell import Cell, CellConfig, CellState, TaskName
from dexpie_ros.simulation.disturbances import DisturbanceConfig
from dexpie_ros.simulation.streams import JPEG_QUALITY, encode_jpeg, state_messages
from dexpie_ros.simulation.tasks.bottle import BottleConfig
from dexpie_ros.simulation.tasks.box import BoxConfig
from dexpie_ros.simulation.tasks.drawer import DrawerConfig


@config
class SimulatedCellParameters:
    """Parameters of the node; units in the names."""

    task: TaskName = "bottle"
    rtf: float = 0.0
    """Real-time factor: 1 real time, 0 as fast as lockstep allows."""
    lockstep: bool = True
    images: bool = True
    width: int = 320
    height: int = 240
    bottle: BottleConfig = BottleConfig()
    drawer: DrawerConfig = DrawerConfig()
    box: BoxConfig = BoxConfig()
    disturbances: DisturbanceConfig = DisturbanceConfig()
    jpeg_quality: int = JPEG_QUALITY
    command_timeout_s: float = Field(5.0, gt=0)


IDLE_PHASE = 0
_STEP_MARGIN_S = 0.01
"""In real time without lockstep: so long before a step is due the world stops waiting for the
command of the step before and goes on with the newest one."""


class SimulatedCell(ContractNode):
    """Publishes the world once per control step and advances it with the command for that step."""

    def __init__(self) -> None:
        super().__init__("simulated_cell")
        self.parameters = declare_config(self, SimulatedCellParameters)
        p = self.parameters
        self._config = CellConfig(
            task=p.task,
            bottle=p.bottle,
            drawer=p.drawer,
            box=p.box,
            width=p.width,
            height=p.height,
            disturbances=p.disturbances,
        )
        self._outputs = {
            topic: self.publisher(topic)
            for topic in (
                "/simulation/state", "/arm/joint_states", "/hand/joint_states", "/arm/tcp_pose"
            )
        }  # fmt: skip
        self._clock_publisher = self.publisher("/clock")
        self._cameras: dict[str, tuple[Any, Any, Any]] = {}
        self._condition = threading.Condition()
        self._commands: dict[int, Command] = {}
        self._last_command: Command | None = None
        self._reset_request: tuple[int, str] | None = None
        self._reset_answer: tuple[bool, str, CellState | None] | None = None
        self._idle = False
        self._stopping = False
        self._problem = ""
        self._now_ns = 0
        self._due: float | None = None
        """When the next step is to be published, on the monotonic clock; None: the scene is new, and
        its first command starts the clock."""
        self.subscribe("/control/command", self._on_command)
        self.subscribe("/session/state", self._on_session)
        self.serve("/simulation/reset", self._on_reset)
        self.report_diagnostics(self._diagnose)
        self._thread = threading.Thread(target=self._run, name="world")
        self._thread.start()

    def destroy_node(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(timeout=5)
        super().destroy_node()

    def now_ns(self) -> int:
        """Simulation time: this node makes the clock and does not follow it."""
        return self._now_ns

    # -- callbacks (executor thread) -------------------------------------------------------------
    def _on_command(self, message: Any) -> None:
        with self._condition:
            self._last_command = read_command(message)
            self._commands[stamp_ns(message.header.stamp)] = self._last_command
            self._condition.notify_all()

    def _on_session(self, message: Any) -> None:
        self._idle = message.phase == IDLE_PHASE

    def _on_reset(self, request: Any, response: Any) -> Any:
        if request.task not in ("", self.parameters.task):
            response.success = False
            response.message = (
                f"this cell simulates task {self.parameters.task!r}, not {request.task!r}; "
                f"launch it with task:={request.task}"
            )
            return response
        with self._condition:
            self._reset_request, self._reset_answer = (request.seed, request.stage), None
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._reset_answer is not None or self._stopping, 30)
            answer = self._reset_answer or (False, "the world did not answer within 30 s", None)
        response.success, response.message, state = answer
        if state is not None:
            response.tick, response.stamp = state.tick, self.messages.time(state.time_ns)
        return response

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        if self._problem:
            return ERROR, self._problem, {}
        return OK, "running", {"idle": self._idle}

    # -- the world's own thread (the GL context belongs to it) -----------------------------------
    def _run(self) -> None:
        try:
            self._live()
        except Exception as error:  # noqa: BLE001 - it must end the node, not only this thread
            if self.context.ok():  # else: Ctrl-C came while something was being published
                abort(error)

    def _live(self) -> None:
        cell = Cell(self._config)
        try:
            if self.parameters.images:
                self._advertise_cameras(cell)
            state = cell.reset(0)
            self._publish(cell, state)
            while not self._stopping:
                command = self._wait_for_command(cell, state)
                if self._stopping:
                    return
                if self._reset_request is not None:
                    state = self._reset(cell)
                elif command is not None:
                    if self._due is None:
                        self._due = time.monotonic() + self._period
                    state = cell.step(command)
                else:
                    continue
                with preferred_thread() if self._period else contextlib.nullcontext():
                    self._pace()
                    self._publish_state(state)
                self._publish_images(cell, state)
        finally:
            cell.close()

    def _wait_for_command(self, cell: Cell, state: CellState) -> Command | None:
        """The command for this step; None where a reset came or none arrived yet."""
        with self._condition:
            if not self.parameters.lockstep and self._last_command is not None:
                rest = (self._due or 0.0) - time.monotonic() - _STEP_MARGIN_S
                self._condition.wait_for(
                    lambda: (
                        self._stopping
                        or self._reset_request is not None
                        or state.time_ns in self._commands
                    ),
                    timeout=max(0.0, rest),
                )
                if self._reset_request is None:
                    self._commands.clear()
                    return self._last_command
            waited = 0.0
            while not self._stopping and self._reset_request is None:
                if state.time_ns in self._commands:
                    command = self._commands[state.time_ns]
                    self._commands.clear()
                    self._problem = ""
                    return command
                if not self._condition.wait(1.0):
                    waited += 1.0
                    # A peer that was not there yet when this state went out gets it now.
                    self._publish(cell, state)
                    if waited >= self.parameters.command_timeout_s and not self._idle:
                        self._complain(state)
        return None

    def _complain(self, state: CellState) -> None:
        writers = self.count_publishers("/control/command")
        cause = (
            "intervention_arbiter is there but does not answer (paused, or waiting for an input)"
            if writers
            else "nobody publishes /control/command: is intervention_arbiter running?"
        )
        problem = f"no command for the control step {state.tick}: {cause}"
        if problem != self._problem:
            self.get_logger().warning(problem)
        self._problem = problem

    def _reset(self, cell: Cell) -> CellState:
        assert self._reset_request is not None
        seed, stage = self._reset_request
        answer: tuple[bool, str, CellState | None]
        try:
            state = cell.reset(seed, stage)
            answer = (True, "", state)
        except ValueError as error:
            state, answer = cell.state, (False, str(error), None)
        with self._condition:
            self._commands.clear()
            self._last_command = self._due = None
            self._reset_request, self._reset_answer = None, answer
            self._condition.notify_all()
        return state

    def _pace(self) -> None:
        """Wait until this step is due. Deadlines are absolute; one that is missed is let go."""
        now = time.monotonic()
        due = now if self._due is None else max(now, self._due)
        time.sleep(due - now)
        self._due = due + self._period

    @property
    def _period(self) -> float:
        rtf = 1.0 if self._idle else self.parameters.rtf
        return STEP_NS * 1e-9 / rtf if rtf > 0 else 0.0

    # -- publishing ------------------------------------------------------------------------------
    def _advertise_cameras(self, cell: Cell) -> None:
        for name in self._config.cameras:
            base = f"/camera/{name}/color"
            info = self.publisher(f"{base}/camera_info")
            focal = cell.focal_length(name)
            p = self.parameters
            info.publish(self.messages.camera_info(0, name, p.width, p.height, focal))
            raw, jpeg = (
                self.publisher(f"{base}/image_raw"),
                self.publisher(f"{base}/image_raw/compressed"),
            )
            self._cameras[name] = (raw, jpeg, info)

    def _publish(self, cell: Cell, state: CellState) -> None:
        self._publish_state(state)
        self._publish_images(cell, state)

    def _publish_state(self, state: CellState) -> None:
        make, now = self.messages, state.time_ns
        self._now_ns = now
        self._clock_publisher.publish(make.clock(now))
        for topic, message in state_messages(make, state):
            self._outputs[topic].publish(message)

    def _publish_images(self, cell: Cell, state: CellState) -> None:
        make, now = self.messages, state.time_ns
        for name, (raw, jpeg, _) in self._cameras.items():
            wants_raw, wants_jpeg = raw.get_subscription_count(), jpeg.get_subscription_count()
            if not wants_raw and not wants_jpeg:
                continue
            image = cell.render(name)
            if wants_raw:
                raw.publish(make.image(now, name, image))
            if wants_jpeg:
                jpeg.publish(
                    make.compressed_image(
                        now, name, encode_jpeg(image, self.parameters.jpeg_quality)
                    )
                )


def main() -> int:
    return run_node(SimulatedCell, images=True)


if __name__ == "__main__":
    sys.exit(main())
