"""The contract of the graph: every topic with type, QoS, rate, frame and unit.

One table. The nodes take their QoS from it, the recorder its list, docs/topics.md its text, and a
test holds the running graph against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Qos(Enum):
    """Quality of service by purpose; `dexpie_ros.runtime.qos_profile` makes the rclpy profile."""

    SENSOR = "sensor"
    """Streams of which the newest value matters: offered reliable (the recorder asks for all of it),
    keep last 10; consumers may ask for best effort."""
    COMMAND = "command"
    """Reliable, keep last 10."""
    EVENT = "event"
    """Reliable, keep last 100: nothing of it may be lost."""
    STATE = "state"
    """Reliable, transient local, keep last 1: late joiners get the present state."""


@dataclass(frozen=True)
class Topic:
    """One row of the contract."""

    name: str
    type: str
    qos: Qos
    publisher: str
    """Executable that publishes it; ``a|b``: one of them (a real device or its simulation; the policy
    or `dexpie episodes replay --execute` in its place)."""
    rate_hz: float
    """Nominal rate on the robot; 0: on change."""
    simulated_rate_hz: float
    """Nominal rate in simulation time; 0: on change."""
    frame: str
    unit: str
    recorded: bool = True


ANYONE = "anyone"
"""Publisher of events that any device or page may send: a pedal, a web page, `ros2 topic pub`."""
CAMERAS = ("front", "wrist")
SERVICES = {
    "/intervention/toggle": "std_srvs/srv/Trigger",
    "/intervention/set": "std_srvs/srv/SetBool",
    "/intervention/force": "std_srvs/srv/Trigger",
    "/intervention/align": "std_srvs/srv/Trigger",
    "/intervention/hold": "std_srvs/srv/Trigger",
    "/intervention/clear_fault": "std_srvs/srv/Trigger",
    "/intervention/emergency_stop": "std_srvs/srv/Trigger",
    "/intervention/home": "std_srvs/srv/Trigger",
    "/intervention/prepare": "std_srvs/srv/Trigger",
    "/intervention/start_episode": "dexpie_msgs/srv/StartEpisode",
    "/intervention/end_episode": "dexpie_msgs/srv/EndEpisode",
    "/policy/start_episode": "dexpie_msgs/srv/StartEpisode",
    "/session/start_episode": "dexpie_msgs/srv/StartEpisode",
    "/session/end_episode": "dexpie_msgs/srv/EndEpisode",
    "/session/next": "std_srvs/srv/Trigger",
    "/session/re_record": "std_srvs/srv/Trigger",
    "/session/skip_stage": "std_srvs/srv/Trigger",
    "/session/mark_stage": "std_srvs/srv/Trigger",
    "/session/exclude": "std_srvs/srv/Trigger",
    "/session/quit": "std_srvs/srv/Trigger",
    "/recorder/start_episode": "dexpie_msgs/srv/StartEpisode",
    "/recorder/end_episode": "dexpie_msgs/srv/EndEpisode",
    "/simulation/reset": "dexpie_msgs/srv/ResetScene",
    "/teleop/calibrate": "std_srvs/srv/Trigger",
    "/teleop/clutch": "std_srvs/srv/Trigger",
    "/arm/recover": "std_srvs/srv/Trigger",
    "/hand/clear_errors": "std_srvs/srv/Trigger",
}
ROBOT_SERVICES = frozenset({"/arm/recover", "/hand/clear_errors"})
"""Of SERVICES: only with the drivers; `/simulation/reset` only in simulation."""


def _camera(name: str) -> list[Topic]:
    base, frame = f"/camera/{name}/color", f"camera_{name}_color_optical_frame"
    publisher = "camera_driver|simulated_cell"
    return [
        Topic(f"{base}/image_raw", "sensor_msgs/msg/Image", Qos.SENSOR, publisher,
              60, 25, frame, "rgb8", recorded=False),
        Topic(f"{base}/image_raw/compressed", "sensor_msgs/msg/CompressedImage", Qos.SENSOR,
              publisher, 60, 25, frame, "JPEG, RGB"),
        Topic(f"{base}/camera_info", "sensor_msgs/msg/CameraInfo", Qos.STATE, publisher,
              0, 0, frame, "pixel"),
    ]  # fmt: skip


TOPICS: tuple[Topic, ...] = (
    Topic("/arm/joint_states", "sensor_msgs/msg/JointState", Qos.SENSOR,
          "arm_driver|simulated_cell", 125, 25, "base", "rad, rad/s"),
    Topic("/arm/tcp_pose", "geometry_msgs/msg/PoseStamped", Qos.SENSOR,
          "arm_driver|simulated_cell", 125, 25, "base", "m"),
    Topic("/hand/joint_states", "sensor_msgs/msg/JointState", Qos.SENSOR,
          "hand_driver|simulated_cell", 25, 25, "", "opening 0 closed .. 1 open, N"),
    *_camera("front"),
    *_camera("wrist"),
    Topic("/teleop/tracker", "geometry_msgs/msg/PoseStamped", Qos.SENSOR,
          "tracker_driver|simulated_operator", 100, 25, "tracker_world", "m"),
    Topic("/teleop/glove", "dexpie_msgs/msg/GloveErgonomics", Qos.SENSOR,
          "glove_driver|simulated_operator", 90, 25, "", "deg"),
    Topic("/teleop/command", "dexpie_msgs/msg/ControlCommand", Qos.COMMAND,
          "teleop", 100, 25, "tracker_world", "m, opening 0..1"),
    Topic("/teleop/alignment", "dexpie_msgs/msg/Alignment", Qos.COMMAND,
          "teleop", 25, 25, "base", "rad, opening 0..1"),
    Topic("/policy/chunk", "dexpie_msgs/msg/ActionChunk", Qos.EVENT,
          "policy_server|replay", 0, 0, "base", "m, opening 0..1"),
    Topic("/policy/status", "dexpie_msgs/msg/PolicyStatus", Qos.EVENT,
          "policy_server|replay", 0, 0, "", "s"),
    Topic("/control/command", "dexpie_msgs/msg/ControlCommand", Qos.COMMAND,
          "intervention_arbiter", 25, 25, "base", "m, opening 0..1"),
    Topic("/control/step", "dexpie_msgs/msg/ControlStep", Qos.EVENT,
          "intervention_arbiter", 25, 25, "base", "m, opening 0..1"),
    Topic("/intervention/state", "dexpie_msgs/msg/InterventionState", Qos.STATE,
          "intervention_arbiter", 0, 0, "", ""),
    Topic("/intervention/key", "std_msgs/msg/String", Qos.EVENT, ANYONE, 0, 0, "",
          "a key, or the name of its action"),
    Topic("/intervention/jog", "sensor_msgs/msg/JointState", Qos.COMMAND, ANYONE, 0, 0, "base",
          "velocity, and position how far, of x y z rx ry rz and the fingers: m, rad, openings"),
    Topic("/session/state", "dexpie_msgs/msg/SessionState", Qos.STATE, "session", 0, 0, "", ""),
    Topic("/session/plan", "std_msgs/msg/String", Qos.STATE, "session", 0, 0, "", "JSON"),
    Topic("/simulation/state", "dexpie_msgs/msg/SimulationState", Qos.EVENT,
          "simulated_cell", 0, 25, "base", "m"),
    Topic("/simulation/events", "std_msgs/msg/String", Qos.EVENT,
          "simulated_operator", 0, 0, "", "JSON"),
    Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", Qos.EVENT,
          "all", 1, 1, "", ""),
    Topic("/clock", "rosgraph_msgs/msg/Clock", Qos.SENSOR,
          "simulated_cell", 0, 25, "", "ns", recorded=False),
)  # fmt: skip

BY_NAME = {topic.name: topic for topic in TOPICS}


def recorded_topics(images: str = "jpeg") -> tuple[Topic, ...]:
    """What the recorder subscribes: ``images`` is ``jpeg`` (compressed), ``raw`` or ``none``."""
    wanted = []
    for topic in TOPICS:
        if topic.type == "sensor_msgs/msg/Image":
            keep = images == "raw"
        elif topic.type == "sensor_msgs/msg/CompressedImage":
            keep = images == "jpeg"
        elif topic.type == "sensor_msgs/msg/CameraInfo":
            keep = images != "none"
        else:
            keep = topic.recorded
        if keep:
            wanted.append(topic)
    return tuple(wanted)


def markdown_table() -> str:
    """The contract as docs/topics.md shows it."""
    lines = [
        "| topic | type | QoS | published by | Hz robot / simulation | frame | unit | recorded |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for t in TOPICS:
        rates = " / ".join(
            "on change" if r == 0 else f"{r:g}" for r in (t.rate_hz, t.simulated_rate_hz)
        )
        if t.rate_hz == t.simulated_rate_hz:
            rates = rates.split(" / ")[0]
        lines.append(
            f"| `{t.name}` | {t.type} | {t.qos.value} | {t.publisher.replace('|', ' or ')} | {rates} "
            f"| {t.frame or '-'} | {t.unit or '-'} | {'yes' if t.recorded else 'no'} |"
        )
    return "\n".join(lines)
