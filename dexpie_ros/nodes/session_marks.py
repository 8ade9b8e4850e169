"""What a person marks while episodes are recorded: where a stage begins, and what not to learn from.

Both become annotations of the episode, which the page shows and changes: the recording itself stays
as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexpie_ros.control.modes import Answer
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.episode import EpisodeError

AUTHOR = "operator"
TOO_SOON_NS = 1_000_000_000
"""A key that is held down repeats itself."""


class SessionMarks:
    """Marks of the running episode, and the episode that ended last."""

    def __init__(self, stages: Sequence[str]) -> None:
        """``stages`` of the plan, in the task's order."""
        self._stages = list(stages)
        self._episode = ""
        self._boundaries: list[tuple[int, str]] = []
        self._last: Path | None = None

    def boundary(self, episode_id: str, stage: str, time_ns: int) -> Answer:
        """The next stage of the plan begins now, in the episode that began at ``stage``."""
        if episode_id != self._episode:
            self._episode, self._boundaries = episode_id, []
        if self._boundaries:
            at, stage = self._boundaries[-1]
            if time_ns - at < TOO_SOON_NS:
                return False, f"stage {stage} began just now"
        following = self._stages.index(stage) + 1 if stage in self._stages else len(self._stages)
        if following >= len(self._stages):
            return False, f"the plan has no stage after {stage!r}; mark it on the page"
        self._boundaries.append((time_ns, self._stages[following]))
        return True, f"stage {self._stages[following]} begins"

    def ended(self, episode_id: str, directory: str, discarded: bool) -> str:
        """The episode is closed: its marks are kept beside it; what went wrong, or ""."""
        boundaries = self._boundaries if episode_id == self._episode else []
        self._boundaries = []
        self._last = Path(directory) if directory and not discarded else None
        if not boundaries or discarded:
            return ""
        if self._last is None:
            return f"{episode_id}: {len(boundaries)} stage boundaries are lost, for nothing was recorded"
        return self._annotate(self._last, stages=boundaries)[1]

    def forget(self, episode_id: str) -> None:
        """The recording was thrown away."""
        if self._last is not None and self._last.name == episode_id:
            self._last = None

    def exclude(self) -> Answer:
        """The critic is not to learn from the episode that ended last."""
        if self._last is None:
            return False, "no episode has ended since this session began"
        excluded, problem = self._annotate(self._last, use_for_critic=False)
        name = self._last.name
        return excluded, problem or f"{name} is not for the critic (the page can take that back)"

    def _annotate(self, directory: Path, **changes: Any) -> Answer:
        try:
            annotate(directory, author=AUTHOR, comment="by key during the session", **changes)
        except (EpisodeError, OSError) as error:
            return False, f"not annotated: {error}"
        return True, ""
