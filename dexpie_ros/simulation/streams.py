"""What the simulated cell says at each control step, as messages of either world.

The node publishes them, the lockstep runner writes them into a bag: one list for both.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dexpie_ros.control.types import ARM_JOINTS, HAND_JOINTS
from dexpie_ros.messages import BASE_FRAME, Messages
from dexpie_ros.simulation.cell import CellState

JPEG_QUALITY = 90


def state_messages(make: Messages, state: CellState) -> list[tuple[str, Any]]:
    """(topic, message) of one state, in the order in which they go out."""
    now, robot = state.time_ns, state.robot
    scene = make.simulation_state(
        now,
        tick=state.tick,
        resets=state.resets,
        task=state.task,
        stage=state.stage,
        seed=state.seed,
        objects=state.objects,
        success=state.success,
        failure=state.failure,
        reason=state.reason,
        contact=state.contact,
    )
    arm = make.joint_state(now, ARM_JOINTS, robot.joints, robot.joint_velocities, frame=BASE_FRAME)
    hand = make.joint_state(now, HAND_JOINTS, robot.hand, effort=robot.hand_force)
    return [
        ("/simulation/state", scene),
        ("/arm/joint_states", arm),
        ("/hand/joint_states", hand),
        ("/arm/tcp_pose", make.pose_stamped(now, BASE_FRAME, robot.tcp)),
    ]


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """JPEG of an RGB image (height, width, 3)."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"JPEG encoding of a {rgb.shape} image failed")
    return bytes(data)
