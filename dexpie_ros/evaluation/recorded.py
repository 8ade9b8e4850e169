"""Evaluation episodes that were recorded on a robot or a live graph, as trials of their policies.

A start is what the episode's ``seed`` says: in simulation the initial state, on a robot the number
of the mark where people laid the objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.evaluation.errors import EvaluationError
from dexpie_ros.evaluation.statistics import Trial, compare, summarise

LIMIT = "limit_s"
"""Key of the note that every trial keeps: when it was to be over."""


@dataclass(frozen=True)
class Recorded:
    """All trials below a folder."""

    trials: Mapping[str, tuple[Trial, ...]]
    """By policy, each start once."""
    limits: frozenset[float] = frozenset()
    """What the trials say of their limit, s."""
    repeated: int = 0
    """Trials that a later one on the same start replaced."""
    aborted: int = 0
    policies: tuple[str, ...] = field(default=())
    """In the order in which they were first tried."""

    def limit(self, asked: float | None) -> float:
        """The limit to judge by, s: what was asked for, else what all trials were made with."""
        if asked is not None:
            return asked
        if len(self.limits) != 1:
            said = ", ".join(f"{x:g}" for x in sorted(self.limits)) or "none"
            raise EvaluationError(f"the trials say of their limit: {said}; give --limit SECONDS")
        return next(iter(self.limits))


def read_trials(root: str | Path) -> Recorded:
    """Evaluation episodes below ``root``; the newest where a policy was tried twice on a start."""
    found: dict[str, dict[str, Trial]] = {}
    limits, repeated, aborted = set(), 0, 0
    for entry in Collection(root).filter(kind=["evaluation"]):
        if not entry.usable or entry.content is None:
            continue
        info = entry.info
        if info.outcome not in ("success", "failure"):
            aborted += 1
            continue
        of_policy = found.setdefault(info.policy_id, {})
        repeated += str(info.seed) in of_policy
        seconds = entry.content.steps * STEP_NS / 1e9
        start = str(info.seed)
        of_policy[start] = Trial(start, info.outcome == "success", seconds, info.cause)
        if isinstance(limit := info.note.get(LIMIT), int | float):
            limits.add(float(limit))
    trials = {policy: tuple(by_start.values()) for policy, by_start in found.items()}
    return Recorded(trials, frozenset(limits), repeated, aborted, tuple(found))


def report_lines(recorded: Recorded, limit_s: float) -> list[str]:
    """A table, and each policy against the first on the starts that both had."""
    names = dict(zip(recorded.policies, shortened(recorded.policies), strict=True))
    width = max(len(name) for name in (*names.values(), "policy"))
    lines = [
        f"success within {limit_s:g} s",
        f"{'policy':{width}}  {'n':>4}  {'success':>8}  {'95 % (Wilson)':>16}  {'median':>8}  mean to the limit",
    ]
    for policy, name in names.items():
        s = summarise(recorded.trials[policy], limit_s)
        between = f"{s.success.low:.1%} .. {s.success.high:.1%}"
        median = f"{s.median_s:.1f} s" if s.successes else "-"
        lines.append(
            f"{name:{width}}  {s.trials:>4}  {s.success.value:>8.1%}  {between:>16}  "
            f"{median:>8}  {s.restricted_mean_s.value:.1f} s"
        )
    first = recorded.policies[0]
    for other in recorded.policies[1:]:
        lines += ["", *_against(recorded, first, other, names, limit_s)]
    if recorded.repeated:
        lines += ["", f"{recorded.repeated} trials were made again; the newest counts"]
    if recorded.aborted:
        lines += ["", f"{recorded.aborted} aborted trials count for nothing"]
    lines += ["", "These figures are of these trained networks, not of the methods behind them."]
    return lines


def _against(
    recorded: Recorded, first: str, other: str, names: Mapping[str, str], limit_s: float
) -> list[str]:
    ones, twos = recorded.trials[other], recorded.trials[first]
    both = {t.start for t in ones} & {t.start for t in twos}
    what = f"{names[other]} - {names[first]}"
    if not both:
        return [f"{what}: no start was tried with both"]
    found = compare(
        [t for t in ones if t.start in both], [t for t in twos if t.start in both], limit_s
    )
    success, time = found.success, found.restricted_mean_s
    alone = len(ones) + len(twos) - 2 * len(both)
    return [
        f"{what}, {found.pairs} starts that both had"
        + (f" ({alone} trials have no partner)" if alone else ""),
        f"  success {100 * success.value:+.1f} points (95 % {100 * success.low:+.1f} .. "
        f"{100 * success.high:+.1f}, paired bootstrap), {found.test.better} starts better, "
        f"{found.test.worse} worse, McNemar p {found.test.p:.3g}",
        f"  mean time to the limit {time.value:+.2f} s ({time.low:+.2f} .. {time.high:+.2f})",
    ]


def shortened(policies: tuple[str, ...]) -> tuple[str, ...]:
    """Paths without the folders that they all share at the front and at the back."""
    parts = [Path(policy).parts for policy in policies]
    if len(parts) < 2 or not all(parts):
        return policies
    shortest = min(map(len, parts))
    front = next((k for k in range(shortest) if len({p[k] for p in parts}) > 1), 0)
    back = next((k for k in range(shortest) if len({p[-1 - k] for p in parts}) > 1), 0)
    cut = [p[front : len(p) - back] for p in parts]
    return tuple(str(Path(*c)) if c else name for c, name in zip(cut, policies, strict=True))
