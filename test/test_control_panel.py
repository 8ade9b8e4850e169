"""The operator's panel."""

import math

import numpy as np

from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.panel import PanelState, clock, panel_lines
from dexpie_ros.control.session import SessionConfig, SessionPlan, StageQuota
from dexpie_ros.control.staleness import StalenessMonitor, StreamConfig
from dexpie_ros.control.types import Mode


def test_the_panel_says_what_matters():
    streams = StalenessMonitor([StreamConfig("/arm", 0.1), StreamConfig("/cam", 0.5)])
    streams.seen("/arm", 0)
    off = Alignment(math.radians(40), np.array([0, 0, 0, 0.5, 0, 0]), math.radians(15), 0.35)
    plan = SessionPlan(SessionConfig((StageQuota("near", episodes=4, pairs=2),)))
    state = PanelState(
        mode=Mode.POLICY,
        reason="the policy drives",
        interventions=2,
        phase="running",
        prompt="s: success",
        episode_id="e7",
        elapsed_s=65.25,
        alignment=off,
        progress=plan.progress(),
        streams=streams.status(0),
        message="no takeover: the wrist is 40 deg off",
    )
    assert panel_lines(state, 100) == [
        "[POLICY] the policy drives",
        "session: running e7  1:05.2  interventions 2",
        "> s: success",
        "alignment: no go  wrist 40 deg of 15",
        "  little +0.00  ring +0.00  middle +0.00  index +0.50!  thumb_bend +0.00  "
        "thumb_rotation +0.00",
        "near: [..........] episodes 0/4  pairs 0/2",
        "streams: /cam never came; is its node up?",
        "no takeover: the wrist is 40 deg off",
    ]
    assert max(map(len, panel_lines(state, 30))) == 30


def test_the_panel_before_anything_is_known():
    lines = panel_lines(PanelState())
    assert lines == ["[arbiter silent]", "session: idle", "alignment: unknown"]
    nothing = Alignment(math.nan, np.full(6, np.nan), 0.2, 0.3)
    assert "wrist ? deg" in panel_lines(PanelState(alignment=nothing))[2]
    assert clock(-1) == "0:00.0" and clock(600) == "10:00.0"
