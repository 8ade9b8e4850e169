"""Where the files of the package lie (profiles, example configs), however it was installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = "dexpie_ros"


def share_directories() -> list[Path]:
    """Candidates, best first: the source tree, sourced ROS 2 workspaces, the environment."""
    source = Path(__file__).resolve().parent.parent
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    found = [source] if (source / "package.xml").is_file() else []
    return found + [Path(p) / "share" / PACKAGE for p in (*prefixes, sys.prefix)]


def share(*parts: str) -> Path:
    """A file or folder that the package ships, for instance ``share("config", "x.yaml")``.

    Raises FileNotFoundError naming the places that were searched.
    """
    places = [directory.joinpath(*parts) for directory in share_directories()]
    for place in places:
        if place.exists():
            return place
    searched = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"{'/'.join(parts)} of {PACKAGE} was not found (searched {searched}); "
        "install the package again: pip install -e . or colcon build"
    )
