"""Runs two nodes in the foreground, as `dexpie launch` does: ROS nodes, or deaf ones."""

import sys

from dexpie_ros.graph import NodeSpec
from dexpie_ros.supervisor import run

if sys.argv[1:] == ["deaf"]:
    module, env = "graph_nodes.plain", {"PLAIN": "stubborn"}
else:
    module, env = "graph_nodes.ticker", {}
sys.exit(run([NodeSpec("node", name=name, module=module, env=env) for name in ("one", "two")]))
