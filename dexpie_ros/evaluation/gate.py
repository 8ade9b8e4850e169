"""Demonstrations first, then RL: which phase the measured figures call for.

`rl_finetune` iff BC succeeds and reaches the object often enough; else `continue_bc`: improving from
its own deployment asks of a policy that it gets close enough to the goal for the data to be worth
something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.evaluation.statistics import Interval

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Phase = Literal["continue_bc", "rl_finetune"]


@config
class GateConfig:
    """Both must be exceeded."""

    bc_success: Share = 0.7
    contact_entry_rate: Share = 0.8


@dataclass(frozen=True)
class Decision:
    """The next phase and why, in words."""

    phase: Phase
    reasons: tuple[str, ...]
    certain: bool
    """Whether both ends of the measured intervals lead to the same phase."""


def decide(success: Interval, contact_entry: Interval, settings: GateConfig) -> Decision:
    """Decide from the point estimates; ``certain`` says whether more trials could change it."""
    figures = (
        ("success", success, settings.bc_success),
        ("contact entry", contact_entry, settings.contact_entry_rate),
    )
    passed = all(rate.value > needed for _, rate, needed in figures)
    surely = all(rate.low > needed for _, rate, needed in figures)
    hardly = any(rate.high <= needed for _, rate, needed in figures)
    reasons = tuple(
        f"{name} {100 * rate.value:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}] is "
        f"{'above' if rate.value > needed else 'not above'} {100 * needed:.0f} %"
        for name, rate, needed in figures
    )
    return Decision("rl_finetune" if passed else "continue_bc", reasons, surely or hardly)
