"""The graph for `ros2 launch`: launch_ros actions from the same description as `dexpie launch`.

Imported only by launch files; `launch` belongs to a ROS 2 installation and is not on PyPI.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace

from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    Shutdown,
)
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dexpie_ros.graph import PACKAGE, STACKS, NodeSpec, stack
from dexpie_ros.graph_robot import uncalibrated
from dexpie_ros.node_spec import RUN_FOLDER_VARIABLE


def launch_description(name: str) -> LaunchDescription:
    """Stack ``name`` with its arguments; they are checked when the launch starts."""
    arguments = STACKS[name]

    def actions(context: LaunchContext) -> list[ExecuteProcess]:
        values = {key: LaunchConfiguration(key).perform(context) for key in arguments}
        folder = tempfile.mkdtemp(prefix="dexpie-launch-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        specs = stack(name, **values)
        if warning := uncalibrated(specs):
            print(f"warning: {warning}", file=sys.stderr)
        return [
            node_action(replace(spec, env={RUN_FOLDER_VARIABLE: folder, **spec.env}))
            for spec in specs
        ]

    declared = [
        DeclareLaunchArgument(key, default_value=_text(argument.default), description=argument.help)
        for key, argument in arguments.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=actions)])


def node_action(spec: NodeSpec) -> ExecuteProcess:
    """One process of the graph as launch starts it."""
    if not spec.is_node:
        return ExecuteProcess(
            cmd=[sys.executable, "-m", spec.module, *spec.command_line()],
            name=spec.name,
            additional_env={"PYTHONUNBUFFERED": "1", **spec.env},
            respawn=spec.respawn,
            respawn_delay=spec.respawn_delay,
            on_exit=when_it_exits(spec),
            output="screen",
        )
    return Node(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[spec.parameters, *spec.parameter_files],
        remappings=list(spec.remaps.items()),
        additional_env={"PYTHONUNBUFFERED": "1", **spec.env},
        respawn=spec.respawn,
        respawn_delay=spec.respawn_delay,
        on_exit=when_it_exits(spec),
        output="screen",
    )


def when_it_exits(spec: NodeSpec) -> Callable[[ProcessExited, LaunchContext], list[EmitEvent]]:
    """What launch does at every exit of a process, beside starting it again after a while.

    launch asks for no exit status before it starts something again: what would only fail again is
    told to shut down while launch waits for ``respawn_delay``, and is not started then.
    """

    def exited(event: ProcessExited, _context: LaunchContext) -> list[EmitEvent]:
        if spec.starts_again(event.returncode):
            return []
        if spec.required:
            return [Shutdown(reason=f"{spec.name} is required")]
        if not spec.respawn:
            return []
        this = event.action
        return [EmitEvent(event=ShutdownProcess(process_matcher=lambda process: process is this))]

    return exited


def _text(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
