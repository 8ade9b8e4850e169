"""`ros2 launch dexpie_ros deploy.launch.py sim:=true`: run a trained policy, take over when it goes wrong.

The nodes and arguments are those of dexpie_ros/graph.py, as for `dexpie launch deploy`.
"""

from dexpie_ros.launching import launch_description


def generate_launch_description():
    return launch_description("deploy")
