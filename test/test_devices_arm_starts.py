"""Where the arm may be sent first, from outside of its box, and how far ahead of itself."""

import numpy as np
import pytest
from test_devices_arm_limits import WIDE, limiter, moved

from dexpie_ros.devices.arm_limits import ArmLimits


def test_the_first_target_must_be_where_the_arm_is():
    """An arm that was stopped does not run to where it was told to be before."""
    arm = limiter(WIDE)
    assert "0.030 m away (limit 0.025 m)" in arm.accept(moved(arm.pose, x=0.03))
    assert "turned by 0.20 rad (limit 0.12)" in arm.accept(moved(arm.pose, turn=(0.2, 0, 0)))
    assert arm.accept(moved(arm.pose, x=0.02)) == ""
    assert arm.accept(moved(arm.pose, x=0.07)) == "", "from then on the usual limit"
    arm.reset(arm.pose, arm.joints)
    assert "limit 0.025" in arm.accept(moved(arm.pose, x=0.03))


def test_an_arm_found_outside_of_the_box_is_not_moved_unasked():
    inside = limiter(WIDE)
    z = inside.pose[2, 3]
    arm = limiter(ArmLimits(workspace_low=(-1, -1, z + 0.05), workspace_high=(1, 1, 1)))
    start = arm.pose.copy()
    assert arm.accept(start) == ""
    for _ in range(50):
        arm.advance()
    assert np.allclose(arm.pose, start, atol=1e-9)
    assert arm.accept(moved(start, z=-0.02)) == ""
    for _ in range(50):
        arm.advance()
    assert arm.pose[2, 3] == pytest.approx(z, abs=1e-7), "no further out"
    for step in range(1, 8):
        assert arm.accept(moved(start, z=0.01 * step)) == ""
        for _ in range(20):
            arm.advance()
    assert arm.pose[2, 3] == pytest.approx(z + 0.07, abs=1e-4)
    arm.accept(moved(start, z=0.0))
    for _ in range(100):
        arm.advance()
    assert arm.pose[2, 3] == pytest.approx(z + 0.05, abs=1e-7), "once inside it stays inside"


def test_an_arm_that_lags_is_waited_for():
    arm = limiter(WIDE)
    assert arm.lag(moved(arm.pose, x=0.14)) == ""
    assert "0.16 m and 0.00 rad behind its target" in arm.lag(moved(arm.pose, x=-0.16))
    assert "0.00 m and 0.70 rad behind" in arm.lag(moved(arm.pose, turn=(0, 0, 0.7)))
