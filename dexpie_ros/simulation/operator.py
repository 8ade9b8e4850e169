"""The simulated operator: a person with a tracker on the wrist, a glove, eyes and a key to press.

It sees the scene a little late and acts through nothing but :class:`OperatorOutput`: how its hand
moves, when it presses the key, and what it declares the episode to be. It never sees commands or
the policy's plans.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.control.types import Mode
from dexpie_ros.geometry import Array, Pose
from dexpie_ros.simulation.attention import Attention, AttentionConfig
from dexpie_ros.simulation.cell import CellConfig, CellState
from dexpie_ros.simulation.clearance import Clearance, ClearanceConfig, HandOutline
from dexpie_ros.simulation.kinematics import matrix_of, rotation_matrix
from dexpie_ros.simulation.memory import Memory
from dexpie_ros.simulation.person import Body, BodyConfig
from dexpie_ros.simulation.skills import Skill, make_skill
from dexpie_ros.simulation.skills.base import Mover, StyleConfig, View
from dexpie_ros.simulation.tasks import make_task

Role = Literal["demonstrate", "supervise", "judge"]
ROLES: dict[str, Role] = {
    "demonstration": "demonstrate",
    "deployment": "judge",
    "correction": "supervise",
    "evaluation": "judge",
}
"""What the operator does in an episode of each kind."""

_ROBOT_LAG_TICKS = 2
"""Steps between a motion of the hand and the robot's: what a person learns to allow for."""
_TURN_STEP = 0.12
"""rad per step (3 rad/s) at which the hand turns while it aligns."""


@config
class OperatorConfig:
    """One person in one role."""

    role: Role = "demonstrate"
    """demonstrate: takes over at once and does the task. supervise: watches the policy and takes
    over when it goes wrong. judge: only says how the episode ended."""
    cell: CellConfig = CellConfig()
    """The scene it knows how to deal with."""
    style: StyleConfig = StyleConfig()
    correction_style: StyleConfig = StyleConfig(speed=0.28, waypoint_noise=0.002, turn_noise=0.05)
    """How it moves after taking over from a policy."""
    body: BodyConfig = BodyConfig()
    attention: AttentionConfig = AttentionConfig()
    clearance: ClearanceConfig = ClearanceConfig()
    sight_delay: float = 0.12
    """s between what happens and what it knows of it."""
    limit: float | None = None
    """s after which an episode counts as failed (timeout); None: the task's own limit."""
    correction_limit: float | None = None
    """s for the same, from a takeover on; None: the task's own limit."""
    forewarning: tuple[float, float] = (1.0, 2.2)
    """s before the moment at which this very start went wrong the last time that it decides to take
    over, if it saw that: what a watched redeployment is for. A drop went wrong where its grasp began."""
    align_time: tuple[float, float] = (0.1, 0.4)
    """s between deciding to take over and pressing the key, drawn per episode. The hand follows
    the robot's all the time, so little is left to align when it comes to it."""
    hand_back: bool = False
    """Gives control back to the policy where the next stage of the task begins; otherwise (as in
    the paper) it goes on to the end."""
    declare_delay: float = 0.2
    """s between seeing the end of an episode and pressing the key."""

    def __post_init__(self) -> None:
        if any(limit is not None and limit <= 0 for limit in (self.limit, self.correction_limit)):
            raise ValueError("limit and correction_limit must be positive (s)")
        if not 0 <= self.sight_delay <= 1 or not 0 <= self.declare_delay <= 10:
            raise ValueError("sight_delay 0..1 s, declare_delay 0..10 s")
        if not 0 <= self.align_time[0] <= self.align_time[1]:
            raise ValueError("align_time: expected two times in s, the shorter first")


@dataclass(frozen=True, eq=False)
class OperatorOutput:
    """What the person does at one control step."""

    tracker: Pose
    """Wrist tracker in the tracker's world, m."""
    ergonomics: dict[str, float]
    """Glove readings in deg, by Manus name."""
    toggle: bool = False
    """Presses the takeover key."""
    calibrate: bool = False
    """Says: my hand is now held like the robot's. Once, at the first observation of an episode."""
    outcome: str = ""
    """success or failure, once per episode."""
    cause: str = ""
    """Of a failure."""
    note: str = ""
    """For the log, where something happened: a trigger, a takeover, a change of label."""
    label: str = ""
    """What it is doing while it drives: ok, pause, miss, detour or retreat."""


class Operator:
    """Call :meth:`reset` when an episode begins and :meth:`observe` once per control step."""

    def __init__(self, config: OperatorConfig, seed: int):
        """``seed`` decides what stays the same for this person: tracker world, glove gains."""
        self.config = config
        self._task = make_task(config.cell.task, config.cell)
        self._body = Body(config.body, np.random.default_rng([seed, 11]))
        self._outline = HandOutline()
        self._sight = 1 + round(config.sight_delay / 0.04)
        self._skill: Skill | None = None
        self.memory = Memory(self._task.drops)

    def reset(self, state: CellState, seed: int) -> None:
        """A new episode begins at ``state``; ``seed`` decides all that is random in it."""
        rng = np.random.default_rng([seed, 12])
        c = self.config
        residual = c.body.alignment_residual * rng.uniform(-1, 1, 3) / np.sqrt(3)
        self._residual = rotation_matrix(residual)
        hand = matrix_of(state.robot.tcp)
        hand[:3, :3] = hand[:3, :3] @ self._residual
        self._body.begin(hand, state.robot.hand, np.random.default_rng([seed, 13]))
        self._attention = Attention(c.attention, np.random.default_rng([seed, 14]))
        self._clearance = Clearance(c.clearance, self._outline, self._task.corners())
        style = c.style if c.role == "demonstrate" else c.correction_style
        self._skill = make_skill(self._task, style, np.random.default_rng([seed, 15]))
        self._mover = Mover(self._skill.speed)
        self._seen: deque[CellState] = deque([state], self._sight)
        self._track: deque[Array] = deque(maxlen=self._sight + self._reach)
        self._doing: Literal["watch", "align", "drive", "give_back"] = "watch"
        self._wait = round(float(rng.uniform(*c.align_time)) / 0.04)
        self._alert_rng = np.random.default_rng([seed, 16])
        lead = float(rng.uniform(*c.forewarning))
        went_wrong = self.memory.step(seed)
        self._warned = None if went_wrong is None else went_wrong - round(lead / 0.04)
        self.memory.begin(seed)
        self._pressed = 0
        self._ending: tuple[str, str] | None = None
        self._countdown = 0
        self._deadline = state.scene_tick + self._ticks(c.limit)
        self._label = ""
        self._calibrated = False

    @property
    def _reach(self) -> int:
        return _ROBOT_LAG_TICKS + self._body.delay_ticks

    def observe(self, state: CellState, mode: Mode) -> OperatorOutput:
        """What the person does at this step, having seen ``state`` (late) and the arbiter's mode."""
        if self._skill is None:
            raise RuntimeError("the operator has no episode yet: call reset(state, seed) first")
        self._seen.append(state)
        seen = self._seen[0]
        outcome, cause = self._judge(state)
        over = self._ending is not None
        toggle, note = False, ""
        if self.config.role != "judge":
            toggle, note = self._act(seen, mode, over)
        self._track.append(self._body.hand.copy())
        tracker, ergonomics = self._body.measure()
        calibrate, self._calibrated = not self._calibrated, True
        label = self._skill.label if self._doing == "drive" and mode is Mode.HUMAN else ""
        if label != self._label:
            self._label = label
            note = "; ".join(part for part in (note, f"label {label or 'none'}") if part)
        return OperatorOutput(tracker, ergonomics, toggle, calibrate, outcome, cause, note, label)

    def _act(self, seen: CellState, mode: Mode, over: bool) -> tuple[bool, str]:
        """Press the key? And a note."""
        if self._doing == "watch":
            return False, self._watch(seen, mode, over)
        if self._doing == "drive":
            if mode is not Mode.HUMAN:
                self._doing = "align" if self.config.role == "demonstrate" else "watch"
                return False, "lost control"
            if over:
                return False, ""
            self._drive(seen)
            if self.config.hand_back and self.config.role == "supervise" and self._mended():
                self._doing, self._pressed = "give_back", 0
            return False, ""
        if self._doing == "give_back":
            return self._give_back(mode, over)
        return self._align(seen, mode, over)

    def _watch(self, seen: CellState, mode: Mode, over: bool) -> str:
        if over:
            return ""
        if self.config.role == "demonstrate":
            self._doing, self._wait = "align", 0
            return ""
        self._follow(seen)
        if mode is Mode.HUMAN:
            return self._take(seen)
        if mode is not Mode.POLICY:
            return ""
        skill, view = self._skill_of(), self._view(seen)
        signal, progress = skill.look(view)
        signal = self._clearance.look(seen, skill.places(view)) or signal
        if seen.failure:
            signal = ""
        cause = self._attention.watch(signal, progress)
        warned = self._warned is not None and seen.scene_tick >= self._warned
        if not cause and warned and not self._attention.asleep:
            self._doing = "align"
            return "trigger forewarned"
        if cause:
            self._doing, self._pressed = "align", 0
            return f"trigger {cause}, reaction {self._attention.delay_s:.2f} s"
        return ""

    def _mended(self) -> bool:
        """Whether the work has come to a stage that it had not come to at the takeover."""
        skill = self._skill_of()
        return skill.phase != self._taken_in and skill.phase in skill.stage_phase.values()

    def _give_back(self, mode: Mode, over: bool) -> tuple[bool, str]:
        """Hold still and press until the arbiter has let go."""
        if mode is not Mode.HUMAN or over:
            self._doing, self._warned = "watch", None
            self._attention = Attention(self.config.attention, self._alert_rng)
            return False, "gave control back"
        self._pressed -= 1
        if self._pressed > 0:
            return False, ""
        self._pressed = 12
        return True, "gives back"

    def _align(self, seen: CellState, mode: Mode, over: bool) -> tuple[bool, str]:
        left = self._follow(seen)
        if mode is Mode.HUMAN:
            return False, self._take(seen)
        if over:
            self._doing = "watch"
            return False, ""
        apart = float(np.abs(self._body.posture - seen.robot.hand).max())
        self._wait -= 1
        self._pressed -= 1
        ready = self._wait <= 0 and left < 0.02 and apart < 0.08
        # Pressed and nothing happened for half a second: press again.
        if ready and self._pressed <= 0 and mode is not Mode.ALIGNING:
            self._pressed = 12
            return True, "takes over"
        return False, ""

    def _follow(self, seen: CellState) -> float:
        """Hold the hand like the robot's; angle that is left."""
        self._body.grasp_towards(seen.robot.hand)
        goal = matrix_of(seen.robot.tcp)[:3, :3] @ self._residual
        return self._body.turn_towards(goal, _TURN_STEP)

    def _take(self, seen: CellState) -> str:
        self._doing = "drive"
        self._track.clear()
        if self.config.role == "supervise":
            self._deadline = seen.scene_tick + self._ticks(self.config.correction_limit)
        skill = self._skill_of()
        self._mover = Mover(skill.speed)
        skill.begin(self._view(seen))
        self._taken_in = skill.phase
        self._drive(seen)
        return f"in control, {skill.phase}"

    def _drive(self, seen: CellState) -> None:
        view = self._view(seen)
        intent = self._skill_of().plan(view)
        translation, turn = self._mover.advance(view.tcp, intent)
        self._body.move(translation, turn)
        self._body.grasp_towards(intent.hand)

    def _view(self, seen: CellState) -> View:
        """What was seen, and where the robot must be by now given how the hand moved since."""
        objects = {name: matrix_of(pose) for name, pose in seen.objects.items()}
        tcp = matrix_of(seen.robot.tcp)
        believed = tcp
        if self._track:
            then, now = self._track[0], self._body.hand
            believed = tcp.copy()
            believed[:3, 3] = tcp[:3, 3] + now[:3, 3] - then[:3, 3]
            believed[:3, :3] = now[:3, :3] @ then[:3, :3].T @ tcp[:3, :3]
        return View(believed, tcp, self._body.posture, seen.robot.hand, objects, seen.contact)

    def _judge(self, state: CellState) -> tuple[str, str]:
        """Outcome and cause, at the step at which the key is pressed."""
        if self._ending is None:
            self.memory.see(state)
            if state.success:
                self._ending = ("success", "")
            elif state.failure:
                self._ending = ("failure", state.reason)
            elif state.scene_tick >= self._deadline:
                self._ending = ("failure", "timeout")
            if self._ending is None:
                return "", ""
            if self._ending[0] == "failure":
                self.memory.failed(self._ending[1], state.scene_tick)
            self._countdown = round(self.config.declare_delay / 0.04)
        self._countdown -= 1
        return self._ending if self._countdown == -1 else ("", "")

    def _ticks(self, limit: float | None) -> int:
        return round((self._task.limit if limit is None else limit) / 0.04)

    def _skill_of(self) -> Skill:
        assert self._skill is not None
        return self._skill


def with_role(config: OperatorConfig, role: Role) -> OperatorConfig:
    """The same person in another role."""
    return dataclasses.replace(config, role=role)


def longest_episode(config: OperatorConfig) -> int:
    """Control steps after its first that an episode in the config's role can last at most.

    Who takes over just before the limit has `correction_limit` from then on; handing back and
    taking over once more (`hand_back`, a fault of the robot) would begin that time anew.
    """
    own = make_task(config.cell.task, config.cell).limit
    seconds = config.limit or own
    if config.role == "supervise":
        seconds += config.correction_limit or own
    return math.ceil(round((seconds + config.declare_delay) / 0.04, 6))
