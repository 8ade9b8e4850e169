"""`dexpie doctor --hardware`: is every configured device there and well? Nothing is moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dexpie_ros.devices.device import Level, Status
from dexpie_ros.devices.probe import probe_all

MARKS = {
    Level.OK: "[green]ok",
    Level.WARN: "[yellow]warning",
    Level.ERROR: "[red]error",
    Level.STALE: "[red]stale",
}


def run_hardware(
    parameters: Path | None, console: Console | None = None, glove_of: Any = None
) -> int:
    """Print a table of all devices; 1 where one cannot be used, else 0.

    ``parameters``: ROS parameter file of the cell; None: the defaults. ConfigError where it cannot
    be used. ``glove_of``: see :func:`probe_all`.
    """
    statuses = probe_all(parameters, glove_of=glove_of)
    table = Table(title="dexpie doctor --hardware")
    for column in ("", "device", "says", "values"):
        table.add_column(column, overflow="fold")
    for status in statuses:
        table.add_row(MARKS[status.level], status.device, status.message, _shown(status))
    console = console or Console()
    console.print(table)
    bad = [status.device for status in statuses if status.level >= Level.ERROR]
    if bad:
        console.print(
            f"not usable: {', '.join(bad)}; docs/hardware.md says what to do", markup=False
        )
        return 1
    console.print("All devices can be used.")
    return 0


def _shown(status: Status) -> str:
    keep = ("host", "where", "serial", "version", "robot_mode", "safety", "side", "age_s")
    return ", ".join(f"{key} {status.values[key]}" for key in keep if key in status.values)
