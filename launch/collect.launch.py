"""`ros2 launch dexpie_ros collect.launch.py sim:=true`: record demonstrations and corrections.

The nodes and arguments are those of dexpie_ros/graph.py, as for `dexpie launch collect`.
"""

from dexpie_ros.launching import launch_description


def generate_launch_description():
    return launch_description("collect")
