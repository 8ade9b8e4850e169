"""ROS messages <-> values and arrays: the only room that knows both.

The same functions serve two worlds: messages of a running ROS 2 (:func:`ros`) and messages of the
``rosbags`` library (:func:`bag`), with which episodes are written and read where there is no ROS.
Reading is by attribute and does not care which world a message came from.
"""

from __future__ import annotations

import array
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.control.types import (
    HAND_JOINTS,
    Chunk,
    Command,
    ControlStep,
    Mode,
    RobotState,
    Source,
)
from dexpie_ros.geometry import Array, Pose

BASE_FRAME = "base"
_SECOND = 1_000_000_000


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
        cx, cy = width / 2, height / 2
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            header=self.header(time_ns, camera_frame(camera)),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=self._numbers("d", [0.0] * 5),
            k=np.array([f, 0, cx, 0, f, cy, 0, 0, 1], np.float64),
            r=np.eye(3).reshape(-1),
            p=np.array([f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1, 0], np.float64),
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


# -- reading -----------------------------------------------------------------------------------
def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces Time or Duration -> int ns."""
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)


def read_pose(message: Any) -> Pose:
    p, q = message.position, message.orientation
    return Pose(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))


def read_command(message: Any) -> Command:
    return Command(read_pose(message.tcp), np.array(message.hand, np.float64))


def read_control_step(message: Any) -> ControlStep:
    return ControlStep(
        time_ns=stamp_ns(message.header.stamp),
        tick=int(message.tick),
        command=read_command(message.command),
        source=Source(message.command.source),
        mode=Mode(message.mode),
        proposal=read_command(message.proposal) if message.has_proposal else None,
        human=read_command(message.human) if message.has_human else None,
        upcoming=tuple(read_command(command) for command in message.upcoming),
        remaining=int(message.remaining),
        chunk_time_ns=stamp_ns(message.chunk_stamp),
        stalls=int(message.stalls),
    )


def read_chunk(message: Any) -> Chunk:
    """ActionChunk -> Chunk; ValueError where the lengths disagree."""
    length = len(message.tcp)
    hand = np.asarray(message.hand, np.float64)
    if length == 0 or hand.size != 6 * length or int(message.prefix_length) > length:
        raise ValueError(
            f"/policy/chunk: {length} poses, {hand.size} hand values and a prefix of "
            f"{message.prefix_length} do not fit together (expected 6 values a pose)"
        )
    poses = [read_pose(pose) for pose in message.tcp]
    return Chunk(
        time_ns=stamp_ns(message.header.stamp),
        positions=np.stack([pose.position for pose in poses]),
        quaternions=np.stack([pose.quaternion for pose in poses]),
        hand=hand.reshape(length, 6),
        prefix_length=int(message.prefix_length),
        step_ns=stamp_ns(message.step),
        latency_ns=stamp_ns(message.latency),
        policy_id=message.policy_id,
    )


def read_robot_state(joints: Any, tcp: Any, hand: Any) -> RobotState:
    """JointState, PoseStamped and hand JointState -> RobotState at the pose's stamp.

    Hand values are put in the order of HAND_JOINTS by name; a missing finger is a ValueError.
    """
    by_name = {name: i for i, name in enumerate(hand.name)}
    missing = [name for name in HAND_JOINTS if name not in by_name]
    if missing:
        raise ValueError(f"/hand/joint_states: no {', '.join(missing)} among {list(hand.name)}")
    order = [by_name[name] for name in HAND_JOINTS]
    effort = np.asarray(hand.effort, np.float64)
    velocity = np.asarray(joints.velocity, np.float64)
    position = np.asarray(joints.position, np.float64)
    return RobotState(
        time_ns=stamp_ns(tcp.header.stamp),
        joints=position,
        joint_velocities=velocity if velocity.size else np.zeros_like(position),
        tcp=read_pose(tcp.pose),
        hand=np.asarray(hand.position, np.float64)[order],
        hand_force=effort[order] if effort.size == len(hand.name) else np.zeros(6),
    )


def read_objects(message: Any) -> dict[str, Pose]:
    """SimulationState -> poses by name, in the message's order."""
    return {
        name: read_pose(pose)
        for name, pose in zip(message.object_names, message.object_poses, strict=True)
    }


def read_image(message: Any) -> NDArray[np.uint8]:
    """Image with encoding rgb8 -> view (height, width, 3); ValueError for any other encoding."""
    if message.encoding != "rgb8" or message.step != 3 * message.width:
        raise ValueError(
            f"{message.header.frame_id}: image is {message.encoding} with step {message.step}; "
            "expected packed rgb8, set the camera's format accordingly"
        )
    data = np.frombuffer(message.data, np.uint8)
    return data.reshape(message.height, message.width, 3)


def camera_frame(camera: str) -> str:
    """REP 105 name of a camera's optical frame."""
    return f"camera_{camera}_color_optical_frame"


# -- the two worlds ----------------------------------------------------------------------------
@lru_cache(maxsize=1)
def ros() -> Messages:
    """Messages of the running ROS 2 (imports its Python packages)."""

    @cache
    def message_class(name: str) -> Any:
        package, _, kind = name.split("/")
        return getattr(importlib.import_module(f"{package}.msg"), kind)

    def numbers(code: str, values: Any) -> Any:
        result = array.array(code)
        dtype = {"d": np.float64, "B": np.uint8}[code]
        result.frombytes(memoryview(np.ascontiguousarray(values, dtype)).cast("B"))
        return result

    return Messages(lambda kind, /, **fields: message_class(kind)(**fields), numbers, "ros")


@lru_cache(maxsize=1)
def bag() -> Messages:
    """Messages of the ``rosbags`` library: no ROS needed; :func:`serialize` makes CDR of them."""
    types = bag_typestore().types

    def numbers(code: str, values: Any) -> Any:
        dtype = {"d": np.float64, "B": np.uint8}[code]
        return np.ascontiguousarray(values, dtype).reshape(-1)

    return Messages(lambda kind, /, **fields: types[kind](**fields), numbers, "bag")


def serialize(message: Any) -> bytes:
    """CDR of a message made by :func:`bag`, byte for byte what DDS would carry."""
    return bytes(bag_typestore().serialize_cdr(message, message.__msgtype__))


@lru_cache(maxsize=1)
def bag_typestore() -> Any:
    """rosbags' ROS 2 types together with those of ``dexpie_msgs``."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_KILTED)
    for path in sorted(_message_folder().glob("*.msg")):
        name = f"dexpie_msgs/msg/{path.stem}"
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), name))
    return store


def _message_folder() -> Path:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    candidates = [Path(p) / "share" / "dexpie_msgs" / "msg" for p in prefixes if p]
    candidates.append(Path(__file__).resolve().parents[1] / "msg" / "msg")
    for folder in candidates:
        if (folder / "ControlStep.msg").is_file():
            return folder
    looked = ", ".join(map(str, candidates))
    raise FileNotFoundError(
        f"dexpie_msgs: no message definitions in {looked}; build them with `make setup`"
    )
