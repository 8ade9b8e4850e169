"""What a watching person remembers of a start that went wrong: when to be on guard next time."""

from __future__ import annotations

from collections.abc import Collection

from dexpie_ros.simulation.cell import CellState

_LETS_GO_TICKS = 10
"""Steps (0.4 s) without contact after which the next contact is another grasp."""


class Memory:
    """Call :meth:`begin` and :meth:`see` for what is watched, :meth:`failed` where it goes wrong.

    Who sees a thing fall out of the hand knows that the grasp was bad, not the fall: of a failure
    among ``drops`` the step at which that grasp began is remembered, of any other the failure's own.
    """

    def __init__(self, drops: Collection[str]):
        self._drops = drops
        self._steps: dict[int, int] = {}

    def begin(self, seed: int) -> None:
        """An episode from the start of ``seed`` begins."""
        self._seed = seed
        self._grasped: int | None = None
        self._touched = 0

    def see(self, state: CellState) -> None:
        """What is true at this step."""
        if not state.contact:
            return
        if self._grasped is None or state.scene_tick - self._touched > _LETS_GO_TICKS:
            self._grasped = state.scene_tick
        self._touched = state.scene_tick

    def failed(self, cause: str, step: int) -> None:
        """It failed at control step ``step``."""
        began = self._grasped if cause in self._drops else None
        self._steps[self._seed] = step if began is None else began

    def remember(self, seed: int, step: int) -> None:
        """The start of ``seed`` went wrong at control step ``step``."""
        self._steps[seed] = step

    def step(self, seed: int) -> int | None:
        """When the start of ``seed`` went wrong; None: not that it knew of."""
        return self._steps.get(seed)

    def forget(self) -> None:
        """Nothing that was seen before is known any more."""
        self._steps.clear()
