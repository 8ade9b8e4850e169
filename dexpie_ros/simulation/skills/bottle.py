"""How to put the bottle onto the platform (task A)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dexpie_ros.geometry import Array
from dexpie_ros.simulation.kinematics import at, rotation_matrix
from dexpie_ros.simulation.scene import TABLE_Z
from dexpie_ros.simulation.skills.base import Intent, Skill, StyleConfig, View, angle, distance
from dexpie_ros.simulation.tasks.bottle import CLOSED_HAND, OPEN_HAND, SIDE_GRASP, BottleTask

_CENTRE = np.array([0.006, 0.0, 0.004])
"""Where the bottle's axis goes in the TCP frame when the hand closes around it."""
_GRASP_HEIGHT = 0.085
_FLAT = np.array([1.0, 1.0, 0.0])


class BottleSkill(Skill):
    """Approach from behind, close, lift, carry, set down, let go, back off; again if it failed."""

    stage_phase: ClassVar = {"grasped": "lift", "above_platform": "lower"}

    def __init__(self, task: BottleTask, style: StyleConfig, rng: np.random.Generator):
        super().__init__(style, rng)
        self._top, self._tolerance = task.platform_top, task.shape.tolerance
        noise = style.waypoint_noise
        self._aim = rng.normal(0, noise, 3) * _FLAT
        self._place = rng.normal(0, noise, 3) * _FLAT
        self._height = _GRASP_HEIGHT + float(rng.uniform(-0.015, 0.01))
        yaw = rng.normal(0, style.turn_noise, 3) * [0.3, 1.0, 0.3]
        self._rotation = SIDE_GRASP @ rotation_matrix(yaw)
        # The opening fingers push the bottle forward: aim short of the middle.
        self._bias = np.array([-0.010, 0.003, 0.0])
        self._slip = np.zeros(3)
        self._lift = 0.0
        self._anchor = np.eye(4)
        self._stood: Array | None = None
        mess = style.mess
        if rng.uniform() < 0.40 * mess:
            self._miss()
        if rng.uniform() < 0.15 * mess:
            direction = rng.uniform(0, 2 * np.pi)
            reach = rng.uniform(0.024, 0.034)
            self._place = reach * np.array([np.cos(direction), np.sin(direction), 0.0])
        self._draw_detours("approach", "carry")

    def first_phase(self, view: View) -> str:
        bottle = view.objects["bottle"]
        away = float(np.linalg.norm((bottle - view.objects["platform"])[:2, 3]))
        if away < 0.02 and abs(bottle[2, 3] - self._top) < 0.008 and bottle[2, 2] > 0.98:
            return "release"
        if view.contact and bottle[2, 3] > TABLE_Z + 0.02 and bottle[2, 2] > 0.8:
            return "carry"
        offset = np.abs(self._offset(view))
        if bool(np.all(offset < [0.02, 0.06, 0.03])) and bottle[2, 2] > 0.9:
            # It is between the fingers, on the table or on the rim of the platform: hold it fast.
            self._anchor = view.seen_tcp.copy()
            return "close"
        if view.contact or self._near(view) < 0.12:
            self._back_off(view)
            return "retreat"
        return "approach"

    def look(self, view: View) -> tuple[str, float]:
        bottle = view.objects["bottle"]
        away = float(np.linalg.norm((bottle - view.objects["platform"])[:2, 3]))
        low = bottle[2, 3] < TABLE_Z + 0.02
        placed = away < self._tolerance and abs(bottle[2, 3] - self._top) < 0.006
        offset = self._offset(view)
        near = float(np.linalg.norm(offset))
        closing = 1.0 - float(view.seen_hand[:4].mean())
        if placed:
            progress = -0.2 - min(near, 0.2)
        elif view.contact and near < 0.06 and (not low or closing > 0.3):
            progress = away + 0.3 * abs(bottle[2, 3] - self._top)
        else:
            progress = 1.0 + near
        signal, pushed = "", self._pushed(view)
        over = -0.012 < bottle[2, 3] - self._top < 0.03 and 0.8 * self._tolerance < away < 0.08
        # In a firm grip it leans a little and nobody minds.
        if bottle[2, 2] < (0.88 if view.contact and closing > 0.4 else 0.97):
            signal = "tilt"
        elif low and not placed and closing < 0.3 and pushed:
            signal = "pushed"
        elif over and view.contact and not low:
            signal = "misplaced"
        elif low and not placed and closing > 0.35 and abs(offset[[0, 2]]).max() > 0.034:
            signal = "bad_close"
        elif low and not placed and closing < 0.3 and self._beside(offset):
            signal = "misaligned"
        return signal, progress

    def places(self, view: View) -> tuple[Array, ...]:
        return self._grasp(view), self._above(view, 0.0)

    @staticmethod
    def _offset(view: View) -> Array:
        """(3,) from where a grasp wants the bottle to where it is, in the TCP frame."""
        bottle, tcp = view.objects["bottle"], view.seen_tcp
        grasp = bottle[:3, 3] + bottle[:3, 2] * _GRASP_HEIGHT
        return np.asarray(tcp[:3, :3].T @ (grasp - tcp[:3, 3]) - _CENTRE)

    def _pushed(self, view: View) -> bool:
        """How far the hand has pushed the bottle along since it touched it is too far."""
        bottle = view.objects["bottle"][:2, 3]
        if self._stood is None or not view.contact:
            self._stood = bottle.copy()
        return float(np.linalg.norm(bottle - self._stood)) > 0.008

    @staticmethod
    def _beside(offset: Array) -> bool:
        """The hand has arrived at the bottle's depth, but its palm or fingers are in the way."""
        return bool(-0.03 < offset[2] < 0.06 and abs(offset[0]) > 0.022 and abs(offset[1]) < 0.08)

    def _grasp(self, view: View) -> Array:
        bottle = view.objects["bottle"]
        height = bottle[:3, 2] * (self._height + self._lift)
        return bottle[:3, 3] + height - self._rotation @ _CENTRE + self._aim + self._slip

    def _near(self, view: View) -> float:
        return float(np.linalg.norm(self._grasp(view) - view.seen_tcp[:3, 3]))

    def _do_approach(self, view: View) -> Intent:
        detour = self._detour(
            view, view.objects["bottle"][:3, 3] + [-0.14, 0.0, 0.085], TABLE_Z + 0.08
        )
        if detour is not None:
            return Intent(at(self._rotation, detour), OPEN_HAND)
        goal = self._grasp(view) - self._rotation[:, 2] * 0.10
        intent = Intent(at(self._rotation, goal), OPEN_HAND)
        opened = float(np.abs(view.hand - OPEN_HAND).max()) < 0.1
        if distance(view, intent) < 0.012 and angle(view, intent) < 0.1 and opened:
            self._enter("reach")
        return intent

    def _do_reach(self, view: View) -> Intent:
        self._mark_miss()
        intent = Intent(at(self._rotation, self._grasp(view)), OPEN_HAND, 0.6)
        if distance(view, intent) < 0.006 or self._steps > 70:
            self._anchor = intent.tcp if distance(view, intent) < 0.01 else view.tcp.copy()
            self._enter("close")
        return intent

    def _do_close(self, view: View) -> Intent:
        self._mark_miss()
        if self._steps > 17:
            self._anchor = self._anchor.copy()
            self._anchor[2, 3] += 0.10
            self._enter("lift")
        return Intent(self._anchor, CLOSED_HAND)

    def _do_lift(self, view: View) -> Intent:
        self._mark_miss()
        intent = Intent(self._anchor, CLOSED_HAND)
        if distance(view, intent) < 0.02 or self._steps > 60:
            if view.objects["bottle"][2, 3] > TABLE_Z + 0.03:
                self._enter("carry")
            else:
                self._again(view)
        return intent

    def _do_carry(self, view: View) -> Intent:
        bottle, platform = view.objects["bottle"][:3, 3], view.objects["platform"][:3, 3]
        between = np.append((view.seen_tcp[:2, 3] + platform[:2]) / 2, view.seen_tcp[2, 3])
        detour = self._detour(view, between, TABLE_Z + 0.16)
        if detour is not None:
            return Intent(at(self._rotation, detour), CLOSED_HAND)
        intent = Intent(at(self._rotation, self._above(view, 0.05)), CLOSED_HAND)
        if distance(view, intent) < 0.012:
            self._enter("lower")
        if bottle[2] < TABLE_Z + 0.02 or not view.contact:
            self._again(view)
        return intent

    def _do_lower(self, view: View) -> Intent:
        up = view.objects["bottle"][:3, 2]
        straighten = rotation_matrix(np.cross(up, [0.0, 0.0, 1.0]))
        goal = at(straighten @ view.seen_tcp[:3, :3], self._above(view, -0.001))
        intent = Intent(goal, CLOSED_HAND, 0.35)
        if distance(view, intent) < 0.007 or self._steps > 60:
            self._anchor = intent.tcp
            self._enter("release")
        if not view.contact:
            self._again(view)
        return intent

    def _do_release(self, view: View) -> Intent:
        if self._steps == 1:
            self._anchor = view.tcp.copy()
        if self._steps > 14:
            back = self._anchor.copy()
            back[:3, 3] -= back[:3, 2] * 0.12
            self._anchor = back
            self._enter("leave")
        return Intent(self._anchor, OPEN_HAND)

    def _do_leave(self, view: View) -> Intent:
        intent = Intent(self._anchor, OPEN_HAND)
        # Still here although the hand is well away: it did not work, so once more, the other way.
        if distance(view, intent) < 0.02 and self._steps > 20:
            error = view.objects["bottle"][:3, 3] - view.objects["platform"][:3, 3]
            self._bias = self._bias - 0.7 * error * _FLAT
            self._again(view)
        return intent

    def _do_retreat(self, view: View) -> Intent:
        self.label = "retreat"
        intent = Intent(self._anchor, OPEN_HAND)
        opened = float(np.abs(view.hand - OPEN_HAND).max()) < 0.1
        if (distance(view, intent) < 0.02 and opened) or self._steps > 60:
            self._enter("approach")
        return intent

    def _above(self, view: View, clearance: float) -> Array:
        """TCP position that brings the bottle's base over the platform."""
        held = view.seen_tcp[:3, 3] - view.objects["bottle"][:3, 3]
        platform = view.objects["platform"][:3, 3]
        base = np.array([platform[0], platform[1], self._top + clearance])
        return base + held + self._place + self._bias

    def _again(self, view: View) -> None:
        self._aim, self._place = self._aim * 0.6, self._place * 0.6
        self._slip, self._lift = np.zeros(3), 0.0
        if self.rng.uniform() < 0.20 * self.style.mess:
            self._miss()
        self._back_off(view)
        self._enter("retreat")

    def _back_off(self, view: View) -> None:
        back = view.tcp.copy()
        back[:3, 3] -= self._rotation[:, 2] * 0.09
        back[:3, :3] = self._rotation
        back[2, 3] = max(back[2, 3], TABLE_Z + 0.06)
        self._anchor = back

    def _miss(self) -> None:
        """Aim so that the hand closes on nothing: too short, too high, or beside."""
        kind = self.rng.choice(["short", "high", "beside"])
        side = float(self.rng.choice([-1.0, 1.0]))
        far, aside, high = self.rng.uniform([0.035, 0.022, 0.065], [0.055, 0.032, 0.080])
        self._lift = 0.0
        if kind == "short":
            self._slip = np.array([-far, 0.0, 0.0])
        elif kind == "high":
            self._slip, self._lift = np.array([-0.010, 0.0, 0.0]), float(high)
        else:
            self._slip = np.array([-0.012, side * aside, 0.0])

    def _mark_miss(self) -> None:
        if self._slip.any():
            self.label = "miss"
