"""ROS messages <-> values and arrays: the only room that knows both.

The same functions serve two worlds: messages of a running ROS 2 (:func:`ros`) and messages of the
``rosbags`` library (:func:`bag`), with which episodes are written and read where there is no ROS.
"""

from dexpie_ros.messages.building import BASE_FRAME, Messages, camera_frame
from dexpie_ros.messages.reading import (
    read_chunk,
    read_command,
    read_control_step,
    read_image,
    read_objects,
    read_pose,
    read_robot_state,
    stamp_ns,
)
from dexpie_ros.messages.worlds import bag, bag_typestore, ros, serialize

__all__ = [
    "BASE_FRAME",
    "Messages",
    "bag",
    "bag_typestore",
    "camera_frame",
    "read_chunk",
    "read_command",
    "read_control_step",
    "read_image",
    "read_objects",
    "read_pose",
    "read_robot_state",
    "ros",
    "serialize",
    "stamp_ns",
]
