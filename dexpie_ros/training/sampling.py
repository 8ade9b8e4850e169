"""Which windows a batch is made of: every one equally often, or by the weight of its source.

The order follows from (seed, epoch) alone, so a run can be resumed at any step.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.geometry import Array
from dexpie_ros.training.dataset import Windows

Index = NDArray[np.int64]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
SOURCES = ("demonstration", "intervention", "policy", "failure")


@config
class SourceWeights:
    """How often a window is drawn, relative to the others, by who made it. 0 leaves it out."""

    demonstration: Weight = 1.0
    """Windows of demonstrations."""
    intervention: Weight = 1.0
    """Windows of later episodes that succeeded, and that count as human (``data.human_share``)."""
    policy: Weight = 1.0
    """All other windows of later episodes that succeeded."""
    failure: Weight = 1.0
    """Windows of later episodes that failed, whoever drove."""

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in SOURCES):
            raise ValueError(
                f"all weights are 0, which leaves nothing; give one of {', '.join(SOURCES)} more"
            )

    def of(self, windows: Windows, episodes: list[Episode], human_share: float) -> Array:
        """(N,) weight of each window; ``episodes`` are those that ``windows.episode`` counts."""
        demonstrated = np.array([e.info.kind == "demonstration" for e in episodes], bool)
        failed = np.array([not e.success for e in episodes], bool)
        human = (windows.human >= human_share - 1e-9) & (windows.human > 0)
        return np.select(
            [demonstrated[windows.episode], failed[windows.episode], human],
            [self.demonstration, self.failure, self.intervention],
            default=self.policy,
        )


class Sampler:
    """Rows of the batches of a run over ``windows`` windows, epoch after epoch, end to end.

    Without ``weights`` (N,), or where all are equal, an epoch holds every window once. With them, N
    windows of which each comes as often as its weight says: exactly so over many epochs, and within
    one epoch never a whole time more or less.
    """

    def __init__(self, seed: int, windows: int, weights: Array | None = None) -> None:
        self.seed, self.windows = seed, windows
        self.weights = None if weights is None or np.ptp(weights) == 0.0 else weights
        self._epoch = lru_cache(maxsize=4)(self._draw)

    def rows(self, step: int, batch_size: int) -> Index:
        """The global batch of ``step``."""
        first = step * batch_size
        rows: list[Index] = []
        missing = batch_size
        while missing:
            epoch, offset = divmod(first, self.windows)
            order = self._epoch(epoch)[offset : offset + missing]
            rows.append(order)
            missing -= len(order)
            first += len(order)
        return np.concatenate(rows)

    def _draw(self, epoch: int) -> Index:
        rng = np.random.default_rng([self.seed, epoch])
        order: Index = rng.permutation(self.windows)
        if self.weights is None:
            return order
        # Systematic sampling: a comb of N even teeth over the windows, each as wide as its weight.
        # Sorted, windows of one weight lie together, so their share is met within one window.
        order = order[np.argsort(self.weights[order], kind="stable")]
        reach = np.cumsum(self.weights[order])
        teeth = (rng.random() + np.arange(self.windows)) * (reach[-1] / self.windows)
        hit = np.searchsorted(reach, teeth, side="right")
        return rng.permutation(order[np.minimum(hit, self.windows - 1)])
