"""When a watching person decides to take over.

Signals are those that a person has: nothing gets better, the object tilts, the hand closes beside
it, the hand arrives beside it, the hand is about to hit the table. Reaction time is lognormal, some signals are missed for a while, and
now and then it takes over for nothing.
"""

from __future__ import annotations

import numpy as np

from dexpie_ros.config import config


@config
class AttentionConfig:
    """How watchful the person is."""

    reaction_median: float = 0.35
    """s."""
    reaction_spread: float = 0.3
    """Standard deviation of the logarithm of the reaction time."""
    lapse: float = 0.05
    """Probability that a signal is noticed only after a second or more."""
    miss: float = 0.0
    """Probability that the person does not intervene in this episode whatever happens."""
    false_alarm: float = 0.0
    """Rate per second of taking over for no reason."""
    stall: float = 1.8
    """s without progress that count as stalled."""

    def __post_init__(self) -> None:
        for name in ("lapse", "miss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"attention.{name} = {getattr(self, name)}: expected 0..1")
        if self.reaction_median <= 0 or self.stall <= 0 or self.false_alarm < 0:
            raise ValueError("attention: times must be positive, false_alarm 0 or more")


class Attention:
    """One episode's watching. :meth:`watch` returns a cause once the person has reacted."""

    def __init__(self, config: AttentionConfig, rng: np.random.Generator, step_s: float = 0.04):
        self.config, self._rng, self._step_s = config, rng, step_s
        self.asleep = bool(rng.uniform() < config.miss)
        """Does not intervene in this episode, whatever happens."""
        self._best, self._idle = np.inf, 0
        self._cause, self._wait = "", 0
        self.delay_s = 0.0

    def watch(self, signal: str, progress: float) -> str:
        """Cause to intervene now, or empty.

        Args:
            signal: what looks wrong at this step (empty: nothing).
            progress: how far from the goal things are; lower is better.
        """
        c = self.config
        if progress < self._best - 0.004:
            self._best, self._idle = progress, 0
        self._idle += 1
        alarm = self._rng.uniform() < c.false_alarm * self._step_s
        if self.asleep:
            return ""
        if not self._cause:
            if not signal and self._idle * self._step_s > c.stall:
                signal = "stall"
            if not signal and alarm:
                signal = "false_alarm"
            if signal:
                self._notice(signal)
            return ""
        self._wait -= 1
        return self._cause if self._wait <= 0 else ""

    def _notice(self, signal: str) -> None:
        c = self.config
        reaction = c.reaction_median * float(np.exp(c.reaction_spread * self._rng.normal()))
        if self._rng.uniform() < c.lapse:
            reaction += float(self._rng.uniform(1.0, 2.0))
        self._cause, self._wait = signal, max(1, round(reaction / self._step_s))
        self.delay_s = self._wait * self._step_s
