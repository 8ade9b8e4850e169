"""What a node has to know again when it is started anew while the rest of the graph goes on.

The launch has a folder of its own that ends with it: after a respawn things are as they were, in the
next session nobody knows whether they still are.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from dexpie_ros.config import write_json
from dexpie_ros.node_spec import RUN_FOLDER_VARIABLE


class Remembered:
    """One node's values, JSON, in the folder of the launch; without one nothing is kept."""

    def __init__(self, node: str) -> None:
        folder = os.environ.get(RUN_FOLDER_VARIABLE, "")
        self._file = Path(folder) / f"remembered-{node}.json" if folder else None
        self._mark = Path(folder) / f"marked-{node}" if folder else None

    def mark(self, on: bool) -> None:
        """One bit that costs a control loop nothing: no bytes, no waiting for the disk."""
        if self._mark is not None:
            with contextlib.suppress(OSError):
                self._mark.touch() if on else self._mark.unlink(missing_ok=True)

    @property
    def marked(self) -> bool:
        return self._mark is not None and self._mark.exists()

    def save(self, values: dict[str, Any]) -> str:
        """Keep ``values``; "" or why a restart of the node will not find them."""
        if self._file is None:
            return "not kept for a restart of this node: it was not started by a launch"
        try:
            write_json(self._file, values)
        except OSError as error:
            return f"not kept for a restart of this node: {error}"
        return ""

    def load(self) -> dict[str, Any]:
        """What was saved since the launch began; empty where nothing was, or nothing readable."""
        if self._file is None:
            return {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}
