"""Who drove, where a data set of others does not say: never guessed, for a policy's failures would be
learned as what a person showed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from dexpie_ros.episodes.episode import Bool, EpisodeError

Driver = Literal["human", "policy", ""]


def require_driver(driver: Driver, steps: int, where: str) -> Bool:
    """Human or not (T,), as told. EpisodeError where nobody told."""
    if not driver:
        raise EpisodeError(
            f"{where}: no `intervention`: who drove is not recorded; say it with --driver human (for "
            "demonstrations) or --driver policy"
        )
    return np.full(steps, driver == "human")
