"""How to open the drawer with one finger and put the tissue box in (task B)."""

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
from dexpie_ros.simulation.tasks.drawer import (
    BOX_SIZE,
    CABINET_DEPTH,
    CABINET_WIDTH,
    CLOSED_HAND,
    DRAWER_TRAVEL,
    HANDLE_HEIGHT,
    HOOK_GRASP,
    HOOK_HAND,
    HOOKED_HAND,
    OPEN_HAND,
    TOP_GRASP,
    DrawerTask,
)

_FINGER = np.array([-0.045, 0.025, 0.0])
"""The index finger's line in the TCP frame."""
_BOX_CENTRE = np.array([0.004, 0.0, 0.036])
"""Where the box's centre goes in the TCP frame when the hand closes around it."""
_FLAT = np.array([1.0, 1.0, 0.0])
_UP = np.array([0.0, 0.0, 1.0])


class DrawerSkill(Skill):
    """Hook, pull, let go, then grasp the box from above and lower it in; again what failed."""

    phases = 14
    stage_phase: ClassVar = {"hooked": "pull", "drawer_open": "over_box", "box_grasped": "carry"}

    def __init__(self, task: DrawerTask, style: StyleConfig, rng: np.random.Generator):
        super().__init__(style, rng)
        self._gap = task.config.gap
        noise = style.waypoint_noise
        self._handle_aim = rng.normal(0, noise, 3) * _FLAT
        self._box_aim = rng.normal(0, noise, 3) * _FLAT
        self._place = rng.normal(0, noise, 3) * _FLAT
        self._hook_turn = HOOK_GRASP @ rotation_matrix(rng.normal(0, style.turn_noise * 0.4, 3))
        self._anchor = np.eye(4)
        self._slip = np.zeros(3)
        if rng.uniform() < 0.40 * style.mess:
            self._miss()
        self._draw_detours("above_handle", "over_box", "carry")

    def look(self, view: View) -> tuple[str, float]:
        box, tcp = view.objects["tissue_box"], view.seen_tcp
        opened, inside = self._opened(view), self._inside(view)
        to_box = float(np.linalg.norm(self._grasp(view)[:3, 3] - tcp[:3, 3]))
        lifted = box[2, 3] > TABLE_Z + BOX_SIZE[2] + 0.02
        if inside:
            progress = -min(to_box, 0.2)
        elif view.contact and lifted:
            drawer = view.objects["drawer"]
            progress = 0.5 + float(np.linalg.norm((box - drawer)[:3, 3]))
        elif opened > 0.12:
            progress = 2.0 + to_box
        else:
            handle = float(np.linalg.norm(self._handle(view) - tcp[:3, 3]))
            progress = 4.0 - 5.0 * opened + handle
        signal = ""
        offset = tcp[:3, :3].T @ (box[:3, 3] - tcp[:3, 3]) - _BOX_CENTRE
        closing = 1.0 - float(view.seen_hand[:4].mean())
        low = tcp[2, 3] < TABLE_Z + 0.12
        if not inside and abs(box[2, 2]) < 0.95:
            signal = "tilt"
        elif opened > 0.1 and not lifted and not inside and low and closing > 0.35:
            near = float(np.hypot(offset[0], offset[1]))
            signal = "bad_close" if 0.04 < near < 0.15 else ""
        return signal, progress

    def places(self, view: View) -> tuple[Array, ...]:
        return self._handle(view), self._grasp(view)[:3, 3], self._over_drawer(view)

    def first_phase(self, view: View) -> str:
        box = view.objects["tissue_box"]
        held = view.contact and float(view.seen_hand[:4].mean()) < 0.7
        self._anchor = self._raised(view)
        if self._inside(view) and self._opened(view) > 0.1:
            return "release"
        if held and box[2, 3] > TABLE_Z + BOX_SIZE[2] + 0.02:
            return "carry"
        if held:
            self._anchor = view.seen_tcp.copy()
            return "close_box"
        behind = self._handle(view) + 0.024 * _UP - view.seen_tcp[:3, 3]
        folded = float(view.seen_hand[:3].max()) < 0.3
        if folded and float(np.abs(behind).max()) < 0.02 and self._opened(view) < 0.12:
            self._anchor = view.seen_tcp.copy()
            return "hook"
        if view.seen_tcp[2, 3] < TABLE_Z + 0.16:
            return "rise"
        return "over_box" if self._opened(view) > 0.12 else "above_handle"

    def _do_above_handle(self, view: View) -> Intent:
        handle = self._handle(view)
        detour = self._detour(view, handle + 0.12 * _UP, TABLE_Z + 0.16)
        if detour is not None:
            return Intent(at(self._hook_turn, detour), HOOK_HAND)
        intent = Intent(at(self._hook_turn, handle + 0.10 * _UP), HOOK_HAND)
        folded = float(np.abs(view.hand - HOOK_HAND).max()) < 0.05
        if distance(view, intent) < 0.012 and angle(view, intent) < 0.08 and folded:
            self._enter("insert")
        return intent

    def _do_insert(self, view: View) -> Intent:
        self._mark_miss()
        goal = at(self._hook_turn, self._handle(view) + 0.024 * _UP)
        intent = Intent(straight_down(view, goal), HOOK_HAND, 0.5)
        if distance(view, Intent(goal, HOOK_HAND)) < 0.006 or self._steps > 60:
            self._anchor = goal
            self._enter("hook")
        return intent

    def _do_hook(self, view: View) -> Intent:
        self._mark_miss()
        intent = Intent(self._anchor, HOOKED_HAND)
        if self._steps > 7:
            self._start = view.tcp[0, 3] + self._opened(view)
            goal = view.tcp.copy()
            goal[0, 3] -= DRAWER_TRAVEL - 0.005 - self._opened(view)
            goal[:3, :3] = self._hook_turn
            self._anchor = goal
            self._enter("pull")
        return intent

    def _do_pull(self, view: View) -> Intent:
        self._mark_miss()
        intent = Intent(self._anchor, HOOKED_HAND, 0.6)
        opened = self._opened(view)
        moved = self._start - view.seen_tcp[0, 3]
        slipped = moved - opened > 0.05
        if opened > DRAWER_TRAVEL - 0.02 or distance(view, intent) < 0.008 or slipped:
            self._anchor = view.tcp.copy()
            self._anchor[0, 3] += 0.012
            self._enter("unhook")
        return intent

    def _do_unhook(self, view: View) -> Intent:
        if self._steps > 8:
            self._anchor = self._raised(view)
            self._enter("rise")
        return Intent(self._anchor, HOOK_HAND)

    def _do_rise(self, view: View) -> Intent:
        high = view.tcp[2, 3] > self._anchor[2, 3] - 0.06
        opened = self._opened(view) > 0.12
        if not opened:
            self.label = "retreat"
            self._slip = np.zeros(3)
        hand = (OPEN_HAND if opened else HOOK_HAND) if high else view.hand
        intent = Intent(self._anchor, hand)
        if distance(view, intent) < 0.02 or self._steps > 60:
            self._enter("over_box" if opened else "above_handle")
        return intent

    def _do_over_box(self, view: View) -> Intent:
        grasp = self._grasp(view)
        detour = self._detour(view, grasp[:3, 3] + 0.14 * _UP, TABLE_Z + 0.22)
        if detour is not None:
            return Intent(at(grasp[:3, :3], detour), OPEN_HAND)
        intent = Intent(at(grasp[:3, :3], grasp[:3, 3] + 0.12 * _UP), OPEN_HAND)
        open_now = float(np.abs(view.hand - OPEN_HAND).max()) < 0.05
        if distance(view, intent) < 0.012 and angle(view, intent) < 0.06 and open_now:
            self._enter("reach_box")
        return intent

    def _do_reach_box(self, view: View) -> Intent:
        self._mark_miss()
        goal = self._grasp(view)
        intent = Intent(straight_down(view, goal), OPEN_HAND, 0.6)
        if distance(view, Intent(goal, OPEN_HAND)) < 0.006 or self._steps > 60:
            self._anchor = goal
            self._enter("close_box")
        return intent

    def _do_close_box(self, view: View) -> Intent:
        self._mark_miss()
        if self._steps > 16:
            self._anchor = self._anchor.copy()
            self._anchor[2, 3] += 0.14
            self._enter("lift_box")
        return Intent(self._anchor, CLOSED_HAND)

    def _do_lift_box(self, view: View) -> Intent:
        self._mark_miss()
        intent = Intent(self._anchor, CLOSED_HAND)
        if distance(view, intent) < 0.02 or self._steps > 60:
            if view.objects["tissue_box"][2, 3] > TABLE_Z + BOX_SIZE[2] + 0.03:
                self._enter("carry")
            else:
                self._again(view)
        return intent

    def _do_carry(self, view: View) -> Intent:
        goal = self._over_drawer(view)
        goal[2] = TABLE_Z + 0.22
        detour = self._detour(view, (goal + view.seen_tcp[:3, 3]) / 2, TABLE_Z + 0.22)
        intent = Intent(at(TOP_GRASP, goal if detour is None else detour), CLOSED_HAND)
        if detour is None and distance(view, intent) < 0.012 and angle(view, intent) < 0.06:
            self._enter("lower_box")
        if not view.contact:
            self._again(view)
        return intent

    def _do_lower_box(self, view: View) -> Intent:
        intent = Intent(at(TOP_GRASP, self._over_drawer(view)), CLOSED_HAND, 0.5)
        if distance(view, intent) < 0.010 or self._steps > 60:
            self._enter("release")
        if not view.contact:
            self._again(view)
        return intent

    def _do_release(self, view: View) -> Intent:
        if self._steps == 1:
            self._anchor = view.tcp.copy()
        if self._steps > 12:
            self._anchor = self._raised(view)
            self._enter("leave")
        return Intent(self._anchor, OPEN_HAND)

    def _do_leave(self, view: View) -> Intent:
        intent = Intent(self._anchor, OPEN_HAND)
        if distance(view, intent) < 0.02 and self._steps > 15:
            self._again(view)
        return intent

    def _again(self, view: View) -> None:
        self._box_aim, self._place = self._box_aim * 0.6, self._place * 0.6
        self._slip = np.zeros(3)
        if self.rng.uniform() < 0.20 * self.style.mess:
            self._miss()
        self._anchor = self._raised(view)
        self._enter("rise")

    def _opened(self, view: View) -> float:
        return float(view.objects["cabinet"][0, 3] - view.objects["drawer"][0, 3])

    def _inside(self, view: View) -> bool:
        offset = (view.objects["tissue_box"] - view.objects["drawer"])[:3, 3]
        return bool(
            abs(offset[0]) < CABINET_DEPTH - 0.005
            and abs(offset[1]) < CABINET_WIDTH - 0.01
            and view.objects["tissue_box"][2, 3] < TABLE_Z + 0.075
        )

    def _handle(self, view: View) -> Array:
        """TCP position that has the index finger in the gap, at the bar's height."""
        drawer = view.objects["drawer"][:3, 3]
        gap = drawer + np.array([-CABINET_DEPTH - self._gap / 2, 0.0, HANDLE_HEIGHT - 0.006])
        return gap - HOOK_GRASP @ _FINGER + self._handle_aim + self._slip

    def _grasp(self, view: View) -> Array:
        box = view.objects["tissue_box"]
        yaw = np.arctan2(box[1, 0], box[0, 0])
        yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2
        rotation = rotation_matrix(yaw * _UP) @ TOP_GRASP
        aim = self._box_aim + (self._slip if self._opened(view) > 0.1 else 0.0)
        return at(rotation, box[:3, 3] - rotation @ _BOX_CENTRE + aim)

    def _over_drawer(self, view: View) -> Array:
        """TCP position that sets the box down in the drawer."""
        held = view.seen_tcp[:3, 3] - view.objects["tissue_box"][:3, 3]
        drawer = view.objects["drawer"][:3, 3]
        base = np.array([drawer[0] - 0.015, drawer[1], TABLE_Z + 0.055])
        return base + held + self._place

    @staticmethod
    def _raised(view: View) -> Array:
        goal = view.tcp.copy()
        goal[2, 3] = max(goal[2, 3] + 0.02, TABLE_Z + 0.20)
        return goal

    def _miss(self) -> None:
        side = float(self.rng.choice([-1.0, 1.0]))
        self._slip = np.array([side * self.rng.uniform(0.03, 0.05), 0.0, 0.0])

    def _mark_miss(self) -> None:
        if self._slip.any():
            self.label = "miss"
