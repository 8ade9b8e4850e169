"""How to lift the lid by its knob, put it aside and drop the candy in (task C)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dexpie_ros.geometry import Array
from dexpie_ros.simulation.kinematics import at, rotation_matrix
from dexpie_ros.simulation.scene import TABLE_Z
from dexpie_ros.simulation.skills.base import (
    Intent,
    Skill,
    StyleConfig,
    View,
    angle,
    distance,
    straight_down,
)
from dexpie_ros.simulation.tasks.box import (
    HALF_WIDTH,
    HEIGHT,
    PINCH_HAND,
    READY_HAND,
    TILT_GRASP,
    WALL,
    BoxTask,
)

_PINCH = np.array([0.0267, 0.017, 0.0133])
"""Where thumb, index and middle finger meet, in the TCP frame."""
_FLAT = np.array([1.0, 1.0, 0.0])
_UP = np.array([0.0, 0.0, 1.0])
_ASIDE = 0.17
"""m from the box to where the lid is put."""


class BoxSkill(Skill):
    """Pinch the knob, lift, put the lid aside; pinch the candy, lift, drop it in; again if lost."""

    phases = 15
    stage_phase: ClassVar = {
        "knob_grasped": "lift_lid", "lid_aside": "above_candy", "candy_grasped": "carry_candy"
    }  # fmt: skip

    def __init__(self, task: BoxTask, style: StyleConfig, rng: np.random.Generator):
        super().__init__(style, rng)
        self._knob_height = task.knob_height
        noise = style.waypoint_noise
        self._knob_aim = rng.normal(0, noise, 3)
        self._candy_aim = rng.normal(0, noise, 3) * _FLAT
        self._place = rng.normal(0, 2 * noise, 3) * _FLAT
        self._anchor = np.eye(4)
        self._slip = np.zeros(3)
        if rng.uniform() < 0.40 * style.mess:
            self._miss()
        self._draw_detours("above_knob", "above_candy", "carry_candy")

    def look(self, view: View) -> tuple[str, float]:
        lid, candy, box = (view.objects[name] for name in ("lid", "candy", "box"))
        tcp = view.seen_tcp[:3, 3]
        closing = 1.0 - float(view.seen_hand[:4].mean())
        signal = ""
        if not self._lid_off(view):
            knob = float(np.linalg.norm(self._knob(view) - tcp))
            progress = 4.0 + knob - 4.0 * max(0.0, lid[2, 3] - TABLE_Z - HEIGHT)
            away = float(np.linalg.norm((lid - box)[:2, 3]))
            progress -= 2.0 * away
            if closing > 0.7 and 0.03 < knob < 0.1 and away < 0.02:
                signal = "bad_close"
        elif self._inside(view):
            progress = -min(float(np.linalg.norm(candy[:3, 3] - tcp)), 0.2)
        elif view.contact and candy[2, 3] > TABLE_Z + 0.04:
            progress = 0.5 + float(np.linalg.norm((candy - box)[:2, 3]))
        else:
            grasp = float(np.linalg.norm(self._candy(view)[:3, 3] - tcp))
            progress = 2.0 + grasp
            if closing > 0.7 and 0.035 < grasp < 0.08 and tcp[2] < TABLE_Z + 0.06:
                signal = "bad_close"
        return signal, progress

    def places(self, view: View) -> tuple[Array, ...]:
        down = self._with_lid_at(view, TABLE_Z), self._over_box(view, 0.0)
        return self._knob(view), self._candy(view)[:3, 3], *down

    def first_phase(self, view: View) -> str:
        held = view.contact and float(view.seen_hand[:4].mean()) < 0.45
        lid, candy = view.objects["lid"], view.objects["candy"]
        self._anchor = view.seen_tcp.copy()
        if not self._lid_off(view):
            if held and lid[2, 3] > TABLE_Z + HEIGHT + 0.02:
                return "carry_lid"
            if held:
                return "pinch_knob"
        else:
            if held and lid[2, 3] > TABLE_Z + 0.02 and self._at_knob(view):
                return "lower_lid"  # beside the box, but not laid down yet
            if self._inside(view):
                return "drop_candy"
            if held and candy[2, 3] > TABLE_Z + 0.04:
                return "carry_candy"
            if held and float(np.linalg.norm((candy - view.seen_tcp)[:3, 3])) < 0.06:
                return "pinch_candy"
        if view.seen_tcp[2, 3] < TABLE_Z + 0.17:
            self._anchor = self._raised(view)
            return "rise"
        return "above_candy" if self._lid_off(view) else "above_knob"

    def _do_above_knob(self, view: View) -> Intent:
        goal = self._knob(view) + 0.08 * _UP
        return self._arrive(view, TILT_GRASP, goal, READY_HAND, "reach_knob")

    def _do_reach_knob(self, view: View) -> Intent:
        self._mark_miss()
        return self._descend(view, at(TILT_GRASP, self._knob(view)), "pinch_knob")

    def _do_pinch_knob(self, view: View) -> Intent:
        return self._pinch(view, 0.09, "lift_lid")

    def _do_lift_lid(self, view: View) -> Intent:
        self._mark_miss()
        intent = Intent(self._anchor, PINCH_HAND, 0.5)
        if distance(view, intent) < 0.02 or self._steps > 60:
            if view.objects["lid"][2, 3] > TABLE_Z + HEIGHT + 0.03:
                self._enter("carry_lid")
            else:
                self._again(view)
        return intent

    def _do_carry_lid(self, view: View) -> Intent:
        goal = self._with_lid_at(view, TABLE_Z + HEIGHT + 0.08)
        intent = Intent(at(TILT_GRASP, goal), PINCH_HAND, 0.8)
        if distance(view, intent) < 0.015:
            self._enter("lower_lid")
        self._check_lid(view)
        return intent

    def _do_lower_lid(self, view: View) -> Intent:
        intent = Intent(at(TILT_GRASP, self._with_lid_at(view, TABLE_Z + 0.009)), PINCH_HAND, 0.4)
        if distance(view, intent) < 0.008 or self._steps > 70:
            self._enter("drop_lid")
        self._check_lid(view)
        return intent

    def _do_drop_lid(self, view: View) -> Intent:
        return self._let_go(view, READY_HAND, 10)

    def _do_rise(self, view: View) -> Intent:
        intent = Intent(self._anchor, READY_HAND)
        if distance(view, intent) < 0.02 or self._steps > 50:
            self._enter("above_candy" if self._lid_off(view) else "above_knob")
        return intent

    def _do_above_candy(self, view: View) -> Intent:
        grasp = self._candy(view)
        goal = grasp[:3, 3] + 0.09 * _UP
        return self._arrive(view, grasp[:3, :3], goal, READY_HAND, "reach_candy")

    def _do_reach_candy(self, view: View) -> Intent:
        self._mark_miss()
        return self._descend(view, self._candy(view), "pinch_candy")

    def _do_pinch_candy(self, view: View) -> Intent:
        return self._pinch(view, 0.14, "lift_candy")

    def _do_lift_candy(self, view: View) -> Intent:
        self._mark_miss()
        intent = Intent(self._anchor, PINCH_HAND)
        if distance(view, intent) < 0.02 or self._steps > 60:
            if view.objects["candy"][2, 3] > TABLE_Z + 0.05:
                self._enter("carry_candy")
            else:
                self._again(view)
        return intent

    def _do_carry_candy(self, view: View) -> Intent:
        goal = self._over_box(view, 0.16)
        detour = self._detour(view, (goal + view.seen_tcp[:3, 3]) / 2, TABLE_Z + 0.16)
        intent = Intent(at(TILT_GRASP, goal if detour is None else detour), PINCH_HAND)
        if detour is None and distance(view, intent) < 0.012:
            self._enter("lower_candy")
        if not view.contact:
            self._again(view)
        return intent

    def _do_lower_candy(self, view: View) -> Intent:
        intent = Intent(at(TILT_GRASP, self._over_box(view, 0.085)), PINCH_HAND, 0.5)
        if distance(view, intent) < 0.012 or self._steps > 40:
            self._enter("drop_candy")
        if not view.contact:
            self._again(view)
        return intent

    def _do_drop_candy(self, view: View) -> Intent:
        return self._let_go(view, READY_HAND, 8)

    def _arrive(self, view: View, rotation: Array, goal: Array, hand: Array, then: str) -> Intent:
        """Go above something with the fingers ready."""
        detour = self._detour(view, goal + 0.04 * _UP, TABLE_Z + 0.18)
        intent = Intent(at(rotation, goal if detour is None else detour), hand)
        ready = float(np.abs(view.hand - hand).max()) < 0.05
        close = distance(view, intent) < 0.010 and angle(view, intent) < 0.06
        if detour is None and ready and close:
            self._enter(then)
        return intent

    def _descend(self, view: View, goal: Array, then: str) -> Intent:
        if distance(view, Intent(goal, READY_HAND)) < 0.005 or self._steps > 60:
            self._anchor = goal
            self._enter(then)
        return Intent(straight_down(view, goal), READY_HAND, 0.5)

    def _pinch(self, view: View, lift: float, then: str) -> Intent:
        self._mark_miss()
        if self._steps > 17:
            self._anchor = self._anchor.copy()
            self._anchor[2, 3] += lift
            self._enter(then)
        return Intent(self._anchor, PINCH_HAND)

    def _let_go(self, view: View, hand: Array, steps: int) -> Intent:
        if self._steps == 1:
            self._anchor = view.tcp.copy()
        if self._steps > steps:
            self._anchor = self._raised(view)
            self._enter("rise")
        return Intent(self._anchor, hand)

    def _check_lid(self, view: View) -> None:
        if not view.contact:
            self._again(view)

    def _again(self, view: View) -> None:
        self._knob_aim, self._candy_aim = self._knob_aim * 0.5, self._candy_aim * 0.5
        self._slip = np.zeros(3)
        if self.rng.uniform() < 0.20 * self.style.mess:
            self._miss()
        self._enter("drop_lid")
        self.label = "retreat"

    def _lid_off(self, view: View) -> bool:
        """Whether the lid lies beside the box (or is nowhere above it)."""
        lid, box = view.objects["lid"], view.objects["box"]
        away = float(np.linalg.norm((lid - box)[:2, 3]))
        return away > 0.085 and lid[2, 3] < TABLE_Z + 0.06

    def _inside(self, view: View) -> bool:
        offset = (view.objects["candy"] - view.objects["box"])[:3, 3]
        inner = HALF_WIDTH - WALL
        return bool(abs(offset[0]) < inner and abs(offset[1]) < inner and offset[2] < 0.05)

    def _knob(self, view: View) -> Array:
        lid = view.objects["lid"]
        knob = lid[:3, 3] + lid[:3, 2] * self._knob_height
        return knob - TILT_GRASP @ _PINCH + self._knob_aim + self._slip

    def _at_knob(self, view: View) -> bool:
        return float(np.linalg.norm(self._knob(view) - view.seen_tcp[:3, 3])) < 0.04

    def _candy(self, view: View) -> Array:
        candy = view.objects["candy"]
        # Whichever horizontal edge is nearest to the hand's own direction.
        edges = candy[:3, :3][:, np.abs(candy[2, :3]) < 0.7]
        yaw = np.arctan2(edges[1, 0], edges[0, 0]) if edges.shape[1] else 0.0
        yaw = (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
        rotation = rotation_matrix(yaw * _UP) @ TILT_GRASP
        offset = rotation @ _PINCH
        return at(rotation, candy[:3, 3] - offset + self._candy_aim + self._slip)

    def _with_lid_at(self, view: View, height: float) -> Array:
        """TCP position that has the lid beside the box at ``height``."""
        held = view.seen_tcp[:3, 3] - view.objects["lid"][:3, 3]
        box = view.objects["box"][:3, 3]
        return np.array([box[0], box[1] + _ASIDE, height]) + held

    def _over_box(self, view: View, height: float) -> Array:
        held = view.seen_tcp[:3, 3] - view.objects["candy"][:3, 3]
        box = view.objects["box"][:3, 3]
        goal = np.array([box[0], box[1], 0.0]) + held + self._place
        goal[2] = TABLE_Z + height + held[2]
        return goal

    @staticmethod
    def _raised(view: View) -> Array:
        goal = view.tcp.copy()
        goal[2, 3] = max(goal[2, 3] + 0.02, TABLE_Z + 0.19)
        return goal

    def _miss(self) -> None:
        angle_ = self.rng.uniform(0, 2 * np.pi)
        reach = self.rng.uniform(0.028, 0.045)
        self._slip = reach * np.array([np.cos(angle_), np.sin(angle_), 0.0])

    def _mark_miss(self) -> None:
        if self._slip.any():
            self.label = "miss"
