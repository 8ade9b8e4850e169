"""Values and arrays -> ROS messages of either world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.control.types import Chunk, Command, ControlStep, Mode, Source
from dexpie_ros.geometry import Array, Pose

BASE_FRAME = "base"
_SECOND = 1_000_000_000


def camera_frame(camera: str) -> str:
    """REP 105 name of a camera's optical frame."""
    return f"camera_{camera}_color_optical_frame"


class Messages:
    """Builds messages of one world; ``make(type, **fields)`` and ``numbers(code, values)`` differ."""

    def __init__(
        self, make: Callable[..., Any], numbers: Callable[[str, Any], Any], world: str
    ) -> None:
        self._make, self._numbers, self.world = make, numbers, world

    # -- parts ---------------------------------------------------------------------------------
    def time(self, time_ns: int) -> Any:
        sec, nanosec = divmod(int(time_ns), _SECOND)
        return self._make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)

    def duration(self, time_ns: int) -> Any:
        sec, nanosec = divmod(int(time_ns), _SECOND)
        return self._make("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)

    def header(self, time_ns: int, frame: str = "") -> Any:
        return self._make("std_msgs/msg/Header", stamp=self.time(time_ns), frame_id=frame)

    def pose(self, pose: Pose) -> Any:
        x, y, z = map(float, pose.position)
        qx, qy, qz, qw = map(float, pose.quaternion)
        return self._make(
            "geometry_msgs/msg/Pose",
            position=self._make("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=self._make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        )

    # -- robot ---------------------------------------------------------------------------------
    def clock(self, time_ns: int) -> Any:
        return self._make("rosgraph_msgs/msg/Clock", clock=self.time(time_ns))

    def pose_stamped(self, time_ns: int, frame: str, pose: Pose) -> Any:
        return self._make(
            "geometry_msgs/msg/PoseStamped",
            header=self.header(time_ns, frame),
            pose=self.pose(pose),
        )

    def joint_state(
        self,
        time_ns: int,
        names: Sequence[str],
        position: Array,
        velocity: Array | None = None,
        effort: Array | None = None,
        frame: str = "",
    ) -> Any:
        def numbers(values: Array | None) -> Any:
            return self._numbers("d", () if values is None else values)

        return self._make(
            "sensor_msgs/msg/JointState",
            header=self.header(time_ns, frame),
            name=list(names),
            position=numbers(position),
            velocity=numbers(velocity),
            effort=numbers(effort),
        )

    def image(self, time_ns: int, camera: str, rgb: NDArray[np.uint8]) -> Any:
        height, width, _ = rgb.shape
        return self._make(
            "sensor_msgs/msg/Image",
            header=self.header(time_ns, camera_frame(camera)),
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=self._numbers("B", rgb),
        )

    def compressed_image(self, time_ns: int, camera: str, jpeg: bytes) -> Any:
        return self._make(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(time_ns, camera_frame(camera)),
            format="rgb8; jpeg compressed bgr8",
            data=self._numbers("B", np.frombuffer(jpeg, np.uint8)),
        )

    def camera_info(self, time_ns: int, camera: str, width: int, height: int, f: float) -> Any:
        """Pinhole camera without distortion; ``f`` focal length in pixels, centre in the middle."""
        matrix = np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], np.float64)
        return self.camera_calibration(time_ns, camera, width, height, matrix)

    def camera_calibration(
        self,
        time_ns: int,
        camera: str,
        width: int,
        height: int,
        matrix: Array,
        distortion: Sequence[float] = (0.0,) * 5,
    ) -> Any:
        """CameraInfo of ``matrix`` K (3, 3) in pixels and plumb_bob ``distortion`` (5,)."""
        projection = np.concatenate([matrix, np.zeros((3, 1))], axis=1)
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            header=self.header(time_ns, camera_frame(camera)),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=self._numbers("d", distortion),
            k=np.array(matrix, np.float64).reshape(-1),
            r=np.eye(3).reshape(-1),
            p=projection.reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=self._make(
                "sensor_msgs/msg/RegionOfInterest",
                x_offset=0, y_offset=0, height=0, width=0, do_rectify=False,
            ),
        )  # fmt: skip

    # -- control -------------------------------------------------------------------------------
    def control_command(
        self,
        time_ns: int,
        command: Command,
        tick: int = 0,
        source: Source = Source.HOLD,
        frame: str = BASE_FRAME,
    ) -> Any:
        return self._make(
            "dexpie_msgs/msg/ControlCommand",
            header=self.header(time_ns, frame),
            tick=int(tick),
            source=int(source),
            tcp=self.pose(command.tcp),
            hand=np.asarray(command.hand, np.float64),
        )

    def control_step(self, step: ControlStep) -> Any:
        def part(command: Command | None, source: Source) -> Any:
            shown = _NO_COMMAND if command is None else command
            return self.control_command(step.time_ns, shown, step.tick, source)

        return self._make(
            "dexpie_msgs/msg/ControlStep",
            header=self.header(step.time_ns, BASE_FRAME),
            tick=int(step.tick),
            mode=int(step.mode),
            command=part(step.command, step.source),
            has_proposal=step.proposal is not None,
            proposal=part(step.proposal, Source.POLICY),
            has_human=step.human is not None,
            human=part(step.human, Source.HUMAN),
            upcoming=[part(command, step.source) for command in step.upcoming],
            remaining=int(step.remaining),
            chunk_stamp=self.time(step.chunk_time_ns),
            stalls=int(step.stalls),
        )

    def action_chunk(self, chunk: Chunk, episode_id: str = "") -> Any:
        return self._make(
            "dexpie_msgs/msg/ActionChunk",
            header=self.header(chunk.time_ns, BASE_FRAME),
            step=self.duration(chunk.step_ns),
            tcp=[self.pose(chunk.command(k).tcp) for k in range(len(chunk))],
            hand=self._numbers("d", np.asarray(chunk.hand, np.float64).reshape(-1)),
            prefix_length=int(chunk.prefix_length),
            latency=self.duration(chunk.latency_ns),
            policy_id=chunk.policy_id,
            episode_id=episode_id,
        )

    def policy_status(
        self,
        time_ns: int,
        *,
        policy_id: str,
        inferred: bool,
        prefix_length: int,
        inferences: int,
        skipped: int,
        latency_s: tuple[float, float, float],
    ) -> Any:
        """``latency_s``: p50, p95 and p99 of this episode."""
        p50, p95, p99 = map(float, latency_s)
        return self._make(
            "dexpie_msgs/msg/PolicyStatus",
            header=self.header(time_ns),
            policy_id=policy_id,
            inferred=bool(inferred),
            prefix_length=int(prefix_length),
            inferences=int(inferences),
            skipped=int(skipped),
            latency_p50=p50,
            latency_p95=p95,
            latency_p99=p99,
        )

    def intervention_state(self, time_ns: int, mode: Mode, reason: str, interventions: int) -> Any:
        return self._make(
            "dexpie_msgs/msg/InterventionState",
            header=self.header(time_ns),
            mode=int(mode),
            reason=reason,
            interventions=int(interventions),
        )

    # -- operator ------------------------------------------------------------------------------
    def alignment(
        self,
        time_ns: int,
        angle: float,
        hand_difference: Array,
        angle_limit: float,
        hand_limit: float,
        aligned: bool,
    ) -> Any:
        return self._make(
            "dexpie_msgs/msg/Alignment",
            header=self.header(time_ns, BASE_FRAME),
            angle=float(angle),
            hand_difference=np.asarray(hand_difference, np.float64),
            angle_limit=float(angle_limit),
            hand_limit=float(hand_limit),
            aligned=bool(aligned),
        )

    def glove(self, time_ns: int, side: str, ergonomics: Mapping[str, float]) -> Any:
        return self._make(
            "dexpie_msgs/msg/GloveErgonomics",
            header=self.header(time_ns),
            side=side,
            type=list(ergonomics),
            value=self._numbers("d", list(ergonomics.values())),
        )

    def text(self, value: str) -> Any:
        return self._make("std_msgs/msg/String", data=value)

    def diagnostics(
        self, time_ns: int, name: str, level: int, message: str, values: Mapping[str, object]
    ) -> Any:
        """One node's DiagnosticArray; ``level`` 0 ok, 1 warning, 2 error."""
        status = self._make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=bytes([level]) if self.world == "ros" else level,
            name=name,
            message=message,
            hardware_id="",
            values=[
                self._make("diagnostic_msgs/msg/KeyValue", key=key, value=str(value))
                for key, value in values.items()
            ],
        )
        return self._make(
            "diagnostic_msgs/msg/DiagnosticArray", header=self.header(time_ns), status=[status]
        )

    # -- simulation and session ----------------------------------------------------------------
    def simulation_state(
        self,
        time_ns: int,
        *,
        tick: int,
        resets: int,
        task: str,
        stage: str,
        seed: int,
        objects: Mapping[str, Pose],
        success: bool,
        failure: bool,
        reason: str,
        contact: bool,
    ) -> Any:
        return self._make(
            "dexpie_msgs/msg/SimulationState",
            header=self.header(time_ns, BASE_FRAME),
            tick=int(tick),
            resets=int(resets),
            task=task,
            stage=stage,
            seed=int(seed),
            object_names=list(objects),
            object_poses=[self.pose(pose) for pose in objects.values()],
            success=bool(success),
            failure=bool(failure),
            reason=reason,
            contact=bool(contact),
        )

    def session_state(self, time_ns: int, **fields: Any) -> Any:
        """Fields as in SessionState.msg; all of them must be given."""
        return self._make("dexpie_msgs/msg/SessionState", header=self.header(time_ns), **fields)


_NO_COMMAND = Command(Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])), np.zeros(6))
