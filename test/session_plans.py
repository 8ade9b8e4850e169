"""Plans and episodes for the tests of sessions."""

from dexpie_ros.control.session import Finished, SessionConfig, SessionPlan, StageQuota


def plan(**quota) -> SessionPlan:
    return SessionPlan(SessionConfig((StageQuota("start", **quota),)))


def record(assignment, outcome, number=[0]) -> Finished:  # noqa: B006 - counts over all tests
    number[0] += 1
    a = assignment
    return Finished(f"e{number[0]}", a.kind, a.stage, a.seed, a.pair_id, outcome)
