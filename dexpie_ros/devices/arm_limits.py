"""The last check before a pose goes to the arm: workspace, step, speed, acceleration, reach.

Commands come at 25 Hz; the arm wants a target every controller cycle. :class:`MotionLimiter`
interpolates between commands (position linear, rotation on the geodesic) and follows that reference
with bounded speed and acceleration, so that whatever arrives, what is sent is smooth. It brakes in
time to stop on its target, so its steady lag behind a reference at speed v is v^2 / 2a (1 mm at
0.1 m/s and 5 m/s^2). What must not be followed any further is braked from in the same way, straight
on: 90 ms and 2 cm from 0.45 m/s.
"""

from __future__ import annotations

import math

import numpy as np

from dexpie_ros import config, geometry
from dexpie_ros.control.types import STEP_NS
from dexpie_ros.devices import ur_kinematics
from dexpie_ros.geometry import Array

Point = tuple[float, float, float]


@config.config
class ArmLimits:
    """What the arm driver lets through. Wider than the arbiter's limits: a net, not a controller."""

    workspace_low: Point = (-0.75, -0.75, 0.02)
    workspace_high: Point = (0.75, 0.75, 0.90)
    """TCP box in the controller's base frame, m; targets outside are clipped to it."""
    max_speed: float = 0.5
    """m/s"""
    max_angular_speed: float = 1.5
    """rad/s"""
    max_acceleration: float = 5.0
    """m/s^2"""
    max_angular_acceleration: float = 20.0
    """rad/s^2"""
    max_step: float = 0.08
    """m between the pose being sent and a new target; a target further away is refused."""
    max_turn: float = 0.5
    """rad, the same for the rotation."""
    first_step: float = 0.025
    """m, the same for the first target after a start or a stop: the arm is where it is, and whoever
    commands must have noticed (the arbiter takes it as measured beyond 0.02 m)."""
    first_turn: float = 0.12
    """rad, likewise (0.1 rad)."""
    max_lag: float = 0.15
    """m between the pose being sent and the measured one: an arm that is slowed down (speed slider,
    contact) must not gather way that it goes on its own later. Its servo lags 0.06 m at 0.5 m/s."""
    max_lag_turn: float = 0.6
    """rad, likewise"""
    max_joint_speed: float = 2.0
    """rad/s of any joint (the UR5's own limit is 3.14); stops the arm near singularities."""
    reach_margin: float = 0.02
    """Share of full stretch that commands never use; braking may go into half of it."""

    def __post_init__(self) -> None:
        for axis, low, high in zip("xyz", self.workspace_low, self.workspace_high, strict=True):
            if not low < high:
                raise ValueError(f"workspace {axis}: low {low} must be below high {high}")
        for name in (
            "max_speed", "max_angular_speed", "max_acceleration", "max_angular_acceleration",
            "max_step", "max_turn", "max_joint_speed", "first_step", "first_turn",
            "max_lag", "max_lag_turn",
        ):  # fmt: skip
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: must be positive and finite")
        if not 0 <= self.reach_margin < 0.5:
            raise ValueError(f"reach_margin = {self.reach_margin}: must lie in 0..0.5")


class MotionLimiter:
    """Turns targets at 25 Hz into one safe pose per controller cycle of ``period`` s."""

    def __init__(
        self, limits: ArmLimits, model: ur_kinematics.UrModel, tcp: Array, period: float
    ) -> None:
        self._limits, self._model, self._period = limits, model, period
        self._flange_from_tcp = geometry.invert(tcp)
        self.reset(np.eye(4), np.zeros(6))

    def reset(self, tcp: Array, joints: Array) -> None:
        """Start at rest from the actual pose (4, 4) and joints (6,)."""
        self.pose, self.joints = np.array(tcp), np.array(joints)
        self._first = True
        self._from = self._goal = self._reference = self.pose
        self._progress = 1.0
        self._velocity, self._spin = np.zeros(3), np.zeros(3)
        self._braking = False

    def hold(self) -> None:
        """Forget the target: come to rest, by :meth:`advance`, and stay there."""
        self._from = self._goal = self._reference = self.pose
        self._progress = 1.0
        self._braking = True

    def lag(self, measured: Array) -> str:
        """Why an arm measured at (4, 4) must catch up before it is sent further, or "".

        What braking will add counts already.
        """
        distance, turn = _apart(self.pose, measured)
        distance += float(self._velocity @ self._velocity) / (2 * self._limits.max_acceleration)
        turn += float(self._spin @ self._spin) / (2 * self._limits.max_angular_acceleration)
        if distance <= self._limits.max_lag and turn <= self._limits.max_lag_turn:
            return ""
        return (
            f"the arm is {distance:.2f} m and {turn:.2f} rad behind its target; is it slowed down "
            "(speed slider), or is something in its way?"
        )

    def near(self, target: Array, measured: Array) -> bool:
        """Whether a target (4, 4) is a step at most from where the arm is measured, and no lag."""
        (step, turn), limits = _apart(target, measured), self._limits
        return step <= min(limits.max_step, limits.max_lag) and turn <= min(
            limits.max_turn, limits.max_lag_turn
        )

    def accept(self, target: Array, measured: Array | None = None) -> str:
        """Take a new target (4, 4). Returns "" or why it is refused; the old one stays then.

        One that is near to where the arm is ``measured`` is taken however far the pose being sent
        is ahead: whoever commands gives up the way that the arm did not go.
        """
        if not np.all(np.isfinite(target)):
            return "the commanded pose is not finite"
        goal = np.array(target)
        here, limits = self.pose[:3, 3], self._limits
        # An arm found outside of the box may stand there or come in, but not be moved unasked.
        low, high = np.minimum(limits.workspace_low, here), np.maximum(limits.workspace_high, here)
        goal[:3, 3] = np.clip(goal[:3, 3], low, high)
        step, turn = _apart(self.pose, goal)
        farthest, widest = limits.max_step, limits.max_turn
        if self._first:
            farthest, widest = min(limits.first_step, farthest), min(limits.first_turn, widest)
        if measured is not None and not self._first and self.near(goal, measured):
            step = turn = 0.0
        if step > farthest:
            return f"the commanded pose is {step:.3f} m away (limit {farthest} m)"
        if turn > widest:
            return f"the commanded pose is turned by {turn:.2f} rad (limit {widest})"
        # Somebody who holds says the same again; the rest of the way to it must not take a step more.
        known = not self._first and not self._braking and np.array_equal(goal, self._goal)
        self._first = self._braking = False
        if not known:
            self._from, self._goal, self._progress = self._reference, goal, 0.0
        return ""

    def advance(self) -> tuple[Array, str]:
        """One cycle: the pose (4, 4) to send, and "" or why it brakes instead of following."""
        if self._braking:
            return self._brake(), ""
        if self._progress < 1.0:
            self._progress = min(1.0, self._progress + self._period / (STEP_NS * 1e-9))
            self._reference = geometry.interpolate(self._from, self._goal, self._progress)
        limits, dt = self._limits, self._period
        rotation = self.pose[:3, :3]
        gap = self._reference[:3, 3] - self.pose[:3, 3]
        twist = rotation @ geometry.rotation_log(rotation.T @ self._reference[:3, :3])
        if not (gap.any() or self._velocity.any() or self._spin.any()) and (
            np.linalg.norm(twist) < 1e-9
        ):
            return self.pose, ""
        velocity = _follow(gap, self._velocity, limits.max_speed, limits.max_acceleration, dt)
        spin = _follow(
            twist, self._spin, limits.max_angular_speed, limits.max_angular_acceleration, dt
        )
        pose, joints = self._moved(velocity, spin, limits.reach_margin)
        problem = ""
        if joints is None:
            problem = "the commanded pose is out of the arm's reach"
        elif np.abs(joints - self.joints).max() > limits.max_joint_speed * dt:
            joint = int(np.argmax(np.abs(joints - self.joints)))
            problem = (
                f"joint {joint + 1} would exceed {limits.max_joint_speed} rad/s (singular pose)"
            )
        if problem or joints is None:
            self.hold()
            return self._brake(), problem
        self.pose, self.joints, self._velocity, self._spin = pose, joints, velocity, spin
        return pose, ""

    def _brake(self) -> Array:
        """One cycle of coming to rest along the last way; the pose (4, 4) to send.

        At once only where the way on has no inverse kinematics. Joints keep to their speed: near a
        singular pose that may take more than the usual deceleration.
        """
        limits, dt = self._limits, self._period
        velocity = _slower(self._velocity, limits.max_acceleration * dt)
        spin = _slower(self._spin, limits.max_angular_acceleration * dt)
        reach = limits.reach_margin / 2
        pose, joints = self._moved(velocity, spin, reach)
        if joints is not None:
            fastest = float(np.abs(joints - self.joints).max())
            if fastest > limits.max_joint_speed * dt:
                share = limits.max_joint_speed * dt / fastest
                velocity, spin = share * velocity, share * spin
                pose, joints = self._moved(velocity, spin, reach)
        if joints is None or np.abs(joints - self.joints).max() > 1.1 * limits.max_joint_speed * dt:
            pose, joints, velocity, spin = self.pose, self.joints, np.zeros(3), np.zeros(3)
        self.pose, self.joints, self._velocity, self._spin = pose, joints, velocity, spin
        self._from = self._goal = self._reference = pose
        return pose

    def _moved(self, velocity: Array, spin: Array, margin: float) -> tuple[Array, Array | None]:
        """Pose (4, 4) after one cycle at (3,) m/s and rad/s, and its joints if there are any."""
        if not (velocity.any() or spin.any()):
            return self.pose, self.joints
        dt = self._period
        pose = geometry.make_pose(
            geometry.rotation_exp(spin * dt) @ self.pose[:3, :3], self.pose[:3, 3] + velocity * dt
        )
        flange = pose @ self._flange_from_tcp
        return pose, ur_kinematics.nearest(self._model, flange, self.joints, margin)


def _apart(a: Array, b: Array) -> tuple[float, float]:
    """m and rad between two poses (4, 4)."""
    distance = float(np.linalg.norm(a[:3, 3] - b[:3, 3]))
    return distance, float(geometry.rotation_angle(a[:3, :3], b[:3, :3]))


def _slower(velocity: Array, change: float) -> Array:
    """The velocity (3,) with its size less by ``change``, at least zero."""
    size = float(np.linalg.norm(velocity))
    return velocity * (1.0 - change / size) if size > change else np.zeros(3)


def _follow(gap: Array, velocity: Array, top: float, acceleration: float, dt: float) -> Array:
    """Next velocity (3,): towards ``gap``, within the limits, slow enough to brake on the target."""
    distance = float(np.linalg.norm(gap))
    if distance < 1e-9 and float(np.linalg.norm(velocity)) <= acceleration * dt:
        return np.zeros(3)
    # Discrete braking: from this speed, shedding a*dt per cycle, the arm stops within `distance`.
    brake = math.sqrt((0.5 * acceleration * dt) ** 2 + 2 * acceleration * distance)
    speed = min(top, distance / dt, brake - 0.5 * acceleration * dt)
    wanted = gap * (speed / distance) if distance > 0 else np.zeros(3)
    change = wanted - velocity
    size = float(np.linalg.norm(change))
    if size > acceleration * dt:
        change = change * (acceleration * dt / size)
    result: Array = velocity + change
    return result
