"""The simulated cell: arm, hand, cameras and one task, advanced one control step at a time.

Deterministic: what happens depends on the config, the seed of :meth:`Cell.reset` and the commands
alone. (Contacts differ in the last bits between MuJoCo versions and processors, so trajectories are
comparable within one installation only.)
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.control.types import STEP_NS, Command, RobotState
from dexpie_ros.geometry import Array
from dexpie_ros.simulation import disturbances
from dexpie_ros.simulation.collision import PLATE, CollisionConfig, HiddenPlate
from dexpie_ros.simulation.disturbances import DisturbanceConfig
from dexpie_ros.simulation.expert import Expert
from dexpie_ros.simulation.kinematics import ArmKinematics, clip, matrix_of, pose_of
from dexpie_ros.simulation.rendering import Image, SceneRenderer, mujoco
from dexpie_ros.simulation.robot_model import HAND_LEVER, HAND_MOTOR_JOINTS, HAND_RANGE
from dexpie_ros.simulation.scene import scene_xml
from dexpie_ros.simulation.skills import StyleConfig
from dexpie_ros.simulation.state import CellState, Snapshot
from dexpie_ros.simulation.tasks import make_task
from dexpie_ros.simulation.tasks.bottle import BottleConfig
from dexpie_ros.simulation.tasks.box import BoxConfig
from dexpie_ros.simulation.tasks.drawer import DrawerConfig

_SETTLE_STEPS_S = 0.1
_STAGE_ATTEMPTS = 5
_STAGE_TICKS = 600
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_NEAR_M = 0.20
_GRIP_BAND = 0.03
"""rad by which a finger may miss its target before it counts as blocked."""

TaskName = Literal["bottle", "drawer", "box"]

__all__ = ["Cell", "CellConfig", "CellState", "Snapshot", "TaskName"]


@config
class CellConfig:
    """One simulated cell."""

    task: TaskName = "bottle"
    """The paper's tasks A, B and C."""
    bottle: BottleConfig = BottleConfig()
    drawer: DrawerConfig = DrawerConfig()
    box: BoxConfig = BoxConfig()
    disturbances: DisturbanceConfig = DisturbanceConfig()
    collision: CollisionConfig = CollisionConfig()
    cameras: tuple[str, ...] = ("front", "wrist")
    width: int = 320
    """Images, px."""
    height: int = 240
    shadows: bool = False
    """Shadows cost about three times the rendering time."""
    substeps: int = 10
    """Physics steps per control step of 40 ms: 10 are 4 ms each. 20 give the same success rates
    in 1.6 times the time."""
    arm_speed: float = 3.0
    """rad/s, fastest arm joint motion."""
    hand_speed: float = 3.0
    """rad/s, fastest hand motor motion."""
    time_origin_ns: int = 1_000_000_000
    """Time of tick 0. Not 0, which stamps use for "never"."""

    def __post_init__(self) -> None:
        for name, low, high in (("width", 16, 1280), ("height", 16, 960), ("substeps", 5, 200)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} = {getattr(self, name)}: expected {low}..{high}")
        if self.arm_speed <= 0 or self.hand_speed <= 0:
            raise ValueError("arm_speed and hand_speed must be positive")
        if self.collision.plate and self.task != "bottle":
            raise ValueError(f"collision.plate is a scenario of task bottle, not of {self.task}")
        if unknown := set(self.cameras) - {"front", "wrist"}:
            raise ValueError(f"cameras: no {sorted(unknown)}; there are front and wrist")


class Cell:
    """One scene. Call :meth:`reset`, then :meth:`step` once per 40 ms of simulated time."""

    def __init__(self, config: CellConfig):
        self.config = config
        self.task = make_task(config.task, config)
        timestep = 1e-9 * STEP_NS / config.substeps
        self._plate = HiddenPlate(config.collision)
        bodies = self.task.bodies() + self._plate.xml()
        xml = scene_xml(self.task.assets(), bodies, self.task.eye, self.task.thumb_torque, timestep)
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.task.bind(self.model)
        self._plate.bind(self.model)
        self._kinematics = ArmKinematics()
        self._site = self.model.site("tcp").id
        joints = [self.model.joint(name) for name in HAND_MOTOR_JOINTS]
        self._hand_qpos = np.array([joint.qposadr[0] for joint in joints])
        self._state_size = mujoco.mj_stateSize(self.model, _STATE)
        step_s = 1e-9 * STEP_NS
        self._arm_step, self._hand_step = config.arm_speed * step_s, config.hand_speed * step_s
        self._ramp = (np.arange(1, config.substeps + 1) / config.substeps)[:, None]
        self._renderer: SceneRenderer | None = None
        self._arm_command, self._hand_command = np.zeros(6), np.zeros(6)
        self._fulfilled = 0
        self._events: tuple[disturbances.Event, ...] = ()
        self._state: CellState | None = None

    @property
    def state(self) -> CellState:
        """The newest state; RuntimeError before the first reset."""
        if self._state is None:
            raise RuntimeError("the cell has no scene yet: call reset(seed) first")
        return self._state

    @property
    def disturbed(self) -> bool:
        """Whether a disturbance has acted on the object since the last reset."""
        return any(event.progress > event.delay for event in self._events)

    @property
    def command(self) -> Command:
        """What the robot is holding on to. A grasp is held by a command more closed than the
        measured hand: who takes a scene over at a later stage starts from this.
        """
        tcp = self._kinematics.forward(self._arm_command)
        return Command(pose_of(tcp[:3, 3], tcp[:3, :3]), 1.0 - self._hand_command / HAND_RANGE)

    def reset(self, seed: int, stage: str = "") -> CellState:
        """Set up the scene of ``seed`` at ``stage`` (empty: the task's first).

        Initial state and disturbances depend on the seed only. Later stages are reached by the
        task's own skill, in no simulated time. The tick goes on by one.
        """
        stages = self.task.stages
        stage = stage or stages[0]
        if stage not in stages:
            raise ValueError(f"task {self.task.name} has no stage {stage!r}; it has {stages}")
        if seed < 0:
            raise ValueError(f"seed = {seed}: expected 0 or more")
        tick = self._state.tick + 1 if self._state else 0
        resets = self._state.resets + 1 if self._state else 1
        self._fulfilled = 0
        for attempt in range(_STAGE_ATTEMPTS):
            self._set_up(np.random.default_rng([seed, 1, attempt] if attempt else [seed, 1]))
            self._state = self._observe(tick, resets, seed, stage, scene_tick=0)
            if stage == stages[0] or self._play_to(stage, seed):
                break
        else:
            raise RuntimeError(
                f"task {self.task.name}, seed {seed}: stage {stage} was not reached in "
                f"{_STAGE_ATTEMPTS} attempts; is the task's config too hard for its skill?"
            )
        self._events = disturbances.draw(self.config.disturbances, np.random.default_rng([seed, 2]))
        handled = self.state.objects[self.task.handled].position
        self._plate.place(self.data, handled, np.random.default_rng([seed, 3]))
        self._fulfilled = 0
        self._state = self._observe(tick, resets, seed, stage, scene_tick=0)
        return self._state

    def step(self, command: Command) -> CellState:
        """Follow ``command`` for one control step (40 ms).

        Joint and finger targets move to it linearly over the step, no faster than the config says.
        """
        state = self.state
        target, openings = matrix_of(command.tcp), np.asarray(command.hand, np.float64)
        if openings.shape != (6,) or not (
            np.isfinite(target).all() and np.isfinite(openings).all()
        ):
            raise ValueError("command: expected a finite pose and six finite openings")
        joints, _ = self._kinematics.inverse(target, self._arm_command)
        arm = clip(joints - self._arm_command, -self._arm_step, self._arm_step)
        motors = self._keep_grip((1.0 - clip(openings, 0.0, 1.0)) * HAND_RANGE)
        hand = clip(motors - self._hand_command, -self._hand_step, self._hand_step)
        ramp = np.empty((self.config.substeps, 12))
        ramp[:, :6] = self._arm_command + self._ramp * arm
        ramp[:, 6:] = self._hand_command + self._ramp * hand
        self._disturb(state)
        model, data, step = self.model, self.data, mujoco.mj_step
        control = data.ctrl
        for row in ramp:
            control[:] = row
            step(model, data)
        self._arm_command, self._hand_command = ramp[-1, :6].copy(), ramp[-1, 6:].copy()
        self._state = self._observe(
            state.tick + 1, state.resets, state.seed, state.stage, state.scene_tick + 1, state
        )
        return self._state

    def snapshot(self) -> Snapshot:
        """All that :meth:`restore` needs to go on from here, bit for bit."""
        physics = np.empty(self._state_size)
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        return Snapshot(
            self.task.name, physics, self._arm_command.copy(), self._hand_command.copy(),
            self._fulfilled, self._events, self.state,
        )  # fmt: skip

    def restore(self, snapshot: Snapshot) -> CellState:
        """Put a scene back. Counts as a reset: the tick goes on, it does not go back."""
        if snapshot.task != self.task.name or snapshot.physics.shape != (self._state_size,):
            raise ValueError(
                f"snapshot of task {snapshot.task!r} ({snapshot.physics.size} numbers) does not fit "
                f"this cell ({self.task.name!r}, {self._state_size}); use the config it was taken with"
            )
        before = self._state or snapshot.state
        mujoco.mj_setState(self.model, self.data, snapshot.physics, _STATE)
        mujoco.mj_kinematics(self.model, self.data)
        self._arm_command = snapshot.arm_command.copy()
        self._hand_command = snapshot.hand_command.copy()
        self._fulfilled, self._events = snapshot.fulfilled, snapshot.events
        tick = before.tick + 1
        time_ns = self._time(tick)
        robot = dataclasses.replace(snapshot.state.robot, time_ns=time_ns)
        self._state = dataclasses.replace(
            snapshot.state, tick=tick, time_ns=time_ns, robot=robot, resets=before.resets + 1
        )
        return self._state

    def render(self, camera: str) -> Image:
        """Image (height, width, 3), uint8 RGB. The first call makes the OpenGL context."""
        if camera not in self.config.cameras:
            raise ValueError(f"no camera {camera!r}; the config has {self.config.cameras}")
        if self._renderer is None:
            c = self.config
            self._renderer = SceneRenderer(self.model, c.width, c.height, c.shadows)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return self._renderer.render(self.data, camera)

    def focal_length(self, camera: str) -> float:
        """Of the pinhole camera, in pixels."""
        fovy = np.radians(float(self.model.camera(camera).fovy[0]))
        return float(0.5 * self.config.height / np.tan(0.5 * fovy))

    def close(self) -> None:
        """Free the OpenGL context; call it from the thread that rendered."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _set_up(self, rng: np.random.Generator) -> None:
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        home = self.task.home(rng)
        joints, error = self._kinematics.inverse(home.tcp, self.task.home_joints, iterations=300)
        if error > 2e-3:
            raise ValueError(f"task {self.task.name}: home pose out of reach (error {error:.3f})")
        motors = (1.0 - home.hand) * HAND_RANGE
        data.qpos[:6], data.qpos[self._hand_qpos] = joints, motors
        data.ctrl[:6], data.ctrl[6:12] = joints, motors
        self.task.place(data, rng)
        mujoco.mj_forward(model, data)
        for _ in range(round(_SETTLE_STEPS_S / model.opt.timestep)):
            mujoco.mj_step(model, data)
        self._arm_command, self._hand_command = joints, motors

    def _keep_grip(self, wanted: Array) -> Array:
        """Motor targets (6,) in rad, where a blocked finger told to be where it is holds on.

        The real hand's fingers are driven by screws, which do not give way: a grasp survives the
        command that somebody who only knows the measured openings starts from.
        """
        measured = self.data.qpos[self._hand_qpos]
        blocked = self._hand_command - measured > _GRIP_BAND
        there = np.abs(wanted - measured) < _GRIP_BAND
        return np.where(blocked & there, self._hand_command, wanted)

    def _play_to(self, stage: str, seed: int) -> bool:
        """Let the task's skill work from the present state until ``stage``; False if it failed."""
        state = self.state
        self._events = ()
        expert = Expert(self.task, StyleConfig(), seed, state, self.command)
        for _ in range(_STAGE_TICKS):
            if expert.skill.reached(stage):
                return True
            state = self.step(expert.command(state))
            if state.success or state.failure:
                return False
        return False

    def _disturb(self, state: CellState) -> None:
        if not self._events:
            return
        held = state.objects[self.task.handled]
        near = float(np.linalg.norm(held.position - state.robot.tcp.position)) < _NEAR_M
        lifted = state.contact and self.task.lifted(self.data)
        body = self.task.handled_id
        self._events, pull, push = disturbances.advance(
            self._events,
            lifted,
            near,
            state.contact,
            float(self.model.body_subtreemass[body]),
            self.config.disturbances.strength,
            self.task.push,
        )
        foot = self.data.xpos[body] - self.data.xipos[body]
        self.data.xfrc_applied[body, :3] = pull + push
        self.data.xfrc_applied[body, 3:] = np.cross(foot, push)

    def _time(self, tick: int) -> int:
        return self.config.time_origin_ns + tick * STEP_NS

    def _observe(
        self,
        tick: int,
        resets: int,
        seed: int,
        stage: str,
        scene_tick: int,
        before: CellState | None = None,
    ) -> CellState:
        data = self.data
        # mj_step leaves body poses as of its last sub-step's beginning: bring them up to date.
        mujoco.mj_kinematics(self.model, data)
        verdict = self.task.judge(data)
        self._fulfilled = self._fulfilled + 1 if verdict.fulfilled else 0
        success = self._fulfilled >= self.task.dwell
        failure = verdict.failure or ("collision" if self._plate.hit(data) else "")
        objects = self.task.objects(data)
        if self._plate.present:
            objects[PLATE] = pose_of(data.xpos[self._plate.body], data.xmat[self._plate.body])
        if before is not None and (before.success or before.failure):
            success, failure = before.success, before.reason
        elif success:
            failure = ""
        time_ns = self._time(tick)
        hand = clip(1.0 - data.qpos[self._hand_qpos] / HAND_RANGE, 0.0, 1.0)
        robot = RobotState(
            time_ns=time_ns,
            joints=data.qpos[:6].copy(),
            joint_velocities=data.qvel[:6].copy(),
            tcp=pose_of(data.site_xpos[self._site], data.site_xmat[self._site]),
            hand=hand,
            hand_force=data.actuator_force[6:12] / HAND_LEVER,
        )
        return CellState(
            tick=tick, time_ns=time_ns, robot=robot, objects=objects,
            success=success, failure=bool(failure), reason=failure, contact=verdict.contact,
            resets=resets, task=self.task.name, stage=stage, seed=seed, scene_tick=scene_tick,
        )  # fmt: skip
