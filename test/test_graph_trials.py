"""`dexpie trials run` on a live graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from live_graph import LiveGraph, live_graph
from policies import tiny_policy

from dexpie_ros.evaluation.recorded import read_trials
from dexpie_ros.nodes.trials import Trials, Turns, policies_of

pytestmark = pytest.mark.slow


def test_policies_are_tried_in_turns_and_the_limit_ends_a_trial(tmp_path: Path) -> None:
    """One start, two policies: the first trial is thrown away and made again, the limit ends both."""
    with live_graph(tmp_path) as live:
        check(live, tmp_path)


def check(live: LiveGraph, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tiny_policy().save(other)
    turns = Turns(policies_of([live.policy, other]), 1, first_start=5)
    said: list[str] = []
    pressed = []

    def throw_away(_: Any) -> None:
        if live.drives and live.client.running and not pressed:  # not on the way home
            pressed.append(live.keys.publish(live.client.node.messages.text("z")))

    subscription = live.client.node.subscribe("/control/step", throw_away)
    trials = Trials(live.client, tmp_path / "t", 15.0, lambda _: True, said.append, home=True)
    try:
        assert trials.run(turns, done=()) == 2
    finally:
        live.client.node.destroy_subscription(subscription)
    assert said == [
        "trial 1 of 2, start 5", "  aborted", "  counts for nothing; the same start again",
        "trial 1 of 2, start 5", "  failure", "trial 2 of 2, start 5", "  failure",
    ]  # fmt: skip
    recorded = read_trials(tmp_path / "t")
    assert recorded.aborted == 1 and recorded.limits == {15.0}
    assert recorded.policies == turns.policies, "whoever begins has the first start first"
    for (only,) in recorded.trials.values():
        assert only.cause == "timeout" and 2.0 < only.time_s < 20.0
    assert trials.run(turns, done=[(5, policy) for policy in turns.policies]) == 0
