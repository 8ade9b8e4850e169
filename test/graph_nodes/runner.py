"""Runs two ROS nodes in the foreground, as `dexpie launch` does."""

import sys

from dexpie_ros.graph import NodeSpec
from dexpie_ros.supervisor import run

sys.exit(
    run([NodeSpec("ticker", name=name, module="graph_nodes.ticker") for name in ("one", "two")])
)
