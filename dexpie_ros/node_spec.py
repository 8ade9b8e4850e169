"""One process of a graph, as data: what `dexpie_ros.graph` lists and launchers start."""

from __future__ import annotations

from dataclasses import dataclass, field

PACKAGE = "dexpie_ros"

EXIT_CONFIG = 2
"""Status of a process whose command line, parameters or config cannot be used."""

SUPERVISOR_VARIABLE = "DEXPIE_SUPERVISOR_PID"
"""Tells a node the process that it must not outlive."""

RUN_FOLDER_VARIABLE = "DEXPIE_RUN_FOLDER"
"""Tells a node a folder that lives as long as the launch: for what a respawned node must know."""

Value = bool | int | float | str | list[float] | list[str]


@dataclass(frozen=True)
class NodeSpec:
    """One process of the graph."""

    kind: str
    """Module in ``dexpie_ros.nodes`` and what the executable is called after."""
    name: str = ""
    """Node name; the kind unless given."""
    namespace: str = "/"
    parameters: dict[str, Value] = field(default_factory=dict)
    parameter_files: tuple[str, ...] = ()
    """ROS parameter files; their section for this very node wins over ``parameters``."""
    remaps: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    required: bool = True
    """Its end ends the graph."""
    respawn: bool = False
    """It is started again when it dies, and then its end does not end the graph; never when it cannot
    use its configuration; if ``required``, not when it ends in order or dies at its start either."""
    respawn_delay: float = 1.0
    """Seconds."""
    module: str = ""
    """What ``python -m`` runs; ``dexpie_ros.nodes.<kind>`` unless given."""
    arguments: tuple[str, ...] | None = None
    """Command line of a process that is no ROS node (an emulator); None for nodes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.kind)
        object.__setattr__(self, "module", self.module or f"{PACKAGE}.nodes.{self.kind}")

    @property
    def is_node(self) -> bool:
        """Whether it is a ROS node."""
        return self.arguments is None

    def starts_again(self, code: int) -> bool:
        """Whether its process may be started again after this exit status."""
        return self.respawn and code != EXIT_CONFIG and not (self.required and code == 0)

    @property
    def executable(self) -> str:
        """Console script, also for ``ros2 run dexpie_ros <executable>``."""
        return f"dexpie-{self.kind}"

    @property
    def full_name(self) -> str:
        return f"{self.namespace.rstrip('/')}/{self.name}"

    def parameter_yaml(self) -> dict[str, object]:
        """What its parameter file holds, as a ROS parameter file wants it."""
        return {self.full_name: {"ros__parameters": dict(self.parameters)}}

    def command_line(self, parameter_file: str = "") -> list[str]:
        """What follows the module on its command line."""
        if self.arguments is not None:
            return list(self.arguments)
        return self.ros_arguments(parameter_file)

    def ros_arguments(self, parameter_file: str = "") -> list[str]:
        """Command line after the executable, in the order that launch_ros writes it."""
        files = [parameter_file] if parameter_file else []
        return [
            "--ros-args",
            *("-r", f"__node:={self.name}", "-r", f"__ns:={self.namespace}"),
            *(part for file in (*files, *self.parameter_files) for part in ("--params-file", file)),
            *(part for a, b in self.remaps.items() for part in ("-r", f"{a}:={b}")),
        ]
