"""Libraries that only these formats need; asked for when a format is used, not before."""

from __future__ import annotations

import importlib
from typing import Any

from dexpie_ros.episodes.episode import EpisodeError


def require(module: str, purpose: str) -> Any:
    """Import ``module`` or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise EpisodeError(
            f"{purpose} needs {name}, which is not installed: pip install 'dexpie_ros[formats]'"
        ) from None
