"""How the arm comes to rest where it must not go on: no dead stop, no way that nobody asked for."""

import numpy as np
from test_devices_arm_limits import PERIOD, WIDE, limiter, moved

from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.guard import ARM, HAND, SESSION, TCP, Guard
from dexpie_ros.control.types import STEP_NS, Command, Mode, RobotState
from dexpie_ros.devices.arm_limits import ArmLimits
from dexpie_ros.geometry import Pose
from dexpie_ros.graph_robot import ARBITER_LIMITS


def driven(arm, direction, speed, cycles=40):
    """Drives the limiter straight on with commands at 25 Hz; whether it had a problem."""
    goal = arm.pose
    for cycle in range(cycles):
        if cycle % 5 == 0:
            goal = moved(goal, *(np.array(direction) * speed * 0.04))
            arm.accept(goal)
        if arm.advance()[1]:
            return True
    return False


def test_a_hold_brakes_straight_on_instead_of_stopping_dead():
    arm = limiter()
    assert not driven(arm, (0, 0, -1.0), 0.45, 25)
    poses = [arm.pose]
    arm.hold()
    for _ in range(30):
        pose, problem = arm.advance()
        assert not problem
        poses.append(pose)
        arm.hold()  # as it is called while the reason lasts
    p = np.array([pose[:3, 3] for pose in poses])
    speeds = np.linalg.norm(np.diff(p, axis=0), axis=1) / PERIOD
    assert 0.3 < speeds[0] < 0.45 and np.all(np.diff(speeds) <= 1e-9)
    assert np.abs(np.diff(speeds)).max() <= WIDE.max_acceleration * PERIOD * (1 + 1e-6)
    assert speeds[12:].max() == 0, "at rest after 0.45 / 5 = 0.09 s"
    assert np.allclose(np.diff(p[:, :2], axis=0), 0, atol=1e-9), "along the last way"
    assert np.allclose(p[-1] - p[0], [0, 0, -0.02], atol=0.003)
    rest = arm.pose
    assert arm.accept(moved(rest, z=0.01)) == "" and not driven(arm, (0, 0, 1.0), 0.1, 20)
    assert arm.pose[2, 3] > rest[2, 3], "and it goes on from there"


def test_the_arm_comes_smoothly_to_rest_before_the_edge_of_its_reach():
    """Measured speed and acceleration of what is sent, at the speed of the arbiter's limit."""
    for speed in (0.1, 0.25, 0.45):
        arm = limiter(WIDE)
        outwards = arm.pose[:3, 3] / np.linalg.norm(arm.pose[:3, 3])
        places = []
        goal, problems = arm.pose, 0
        for cycle in range(round(0.5 / speed / PERIOD)):
            if cycle % 5 == 0:
                goal = moved(goal, *(outwards * speed * 0.04))
                arm.accept(goal)
            pose, problem = arm.advance()
            problems += bool(problem)
            places.append(pose[:3, 3])
        assert problems, "it did not get there"
        v = np.diff(places, axis=0) / PERIOD
        a = np.linalg.norm(np.diff(v, axis=0), axis=1) / PERIOD
        assert a.max() <= WIDE.max_acceleration * (1 + 1e-6), (speed, a.max())


def test_where_braking_has_no_inverse_kinematics_the_arm_stops_at_once():
    arm = limiter()
    assert not driven(arm, (0, 0, -1.0), 0.45, 25)
    before = arm.pose
    arm._moved = lambda velocity, spin, margin: (before, None)
    arm.hold()
    for _ in range(3):
        assert np.array_equal(arm.advance()[0], before)
    assert not arm._velocity.any() and not arm._spin.any()


def test_what_braking_will_add_counts_as_lag():
    arm = limiter()
    assert not driven(arm, (0, 0, -1.0), 0.45, 25)
    speed = float(np.linalg.norm(arm._velocity))
    way = speed**2 / (2 * WIDE.max_acceleration)
    assert way > 0.015
    slack = WIDE.max_lag - way
    assert arm.lag(moved(arm.pose, z=slack - 1e-4)) == ""
    assert "behind its target" in arm.lag(moved(arm.pose, z=slack + 1e-4))


class Pulled:
    """Arbiter, guard and limiter as on a robot: an operator pulls the arm straight up."""

    def __init__(self):
        limits = {key.rpartition(".")[2]: value for key, value in ARBITER_LIMITS.items()}
        self.arbiter = Arbiter(ArbiterConfig(limits=limits))
        self.guard, self.arm, self.now = Guard(), limiter(ArmLimits()), 0
        self.arbiter.start("demonstration")
        self.step(0.0)
        assert self.arbiter.request(Mode.HUMAN)[0]

    def step(self, up):
        """One control step with the hand ``up`` m up: what the arm's driver says, and how high the
        arm is.
        """
        self.now += STEP_NS
        for stream in (ARM, TCP, HAND, SESSION):
            self.guard.seen(stream, self.now)
        self.guard.check(self.arbiter, self.now)
        measured = Pose.from_matrix(self.arm.pose)
        robot = RobotState(self.now, np.zeros(6), np.zeros(6), measured, np.full(6, 0.5))
        # a hand parallel to the arm: its motion is the base's
        hand = Pose(np.array([0.0, 0.0, up]), measured.quaternion)
        step = self.arbiter.step(self.now, robot, Command(hand, np.full(6, 0.5)))
        said = self.arm.accept(step.command.tcp.matrix(), self.arm.pose)
        for _ in range(5):
            said = self.arm.advance()[1] or said
        self.guard.device("arm_driver", 1 if said else 0, f"holding: {said}" if said else "ok")
        return said, float(self.arm.pose[2, 3])


def test_a_command_that_ran_ahead_of_a_braked_arm_is_taken_back():
    """At the edge of the reach the arm brakes. The arbiter may lead it by 0.14 m, it takes 0.08."""
    pulled = Pulled()
    said, heights = zip(*(pulled.step(0.012 * k) for k in range(90)), strict=True)
    refused = ["away" in text for text in said].index(True)
    stands, top = heights[refused], 0.012 * 89
    said, heights = zip(*(pulled.step(top) for _ in range(25)), strict=True)
    assert said[-1] == "", "who stays up there is not refused for good"
    assert np.abs(np.array(heights) - stands).max() < 0.005, "and what takes it back moves nothing"
    assert pulled.arbiter.mode is Mode.HUMAN
    said, heights = zip(*(pulled.step(top - 0.005 * k) for k in range(31)), strict=True)
    assert said[-1] == "" and heights[-1] < stands - 0.1, "back he is followed at once"
