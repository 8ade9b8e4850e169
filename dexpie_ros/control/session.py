"""What a collection session still wants: quotas per stage, pairs, the staged flow (docs/operation.md).

A pure state machine over finished episodes. Resuming is replaying: a plan made with the episodes
that already lie on disk goes on where the last one stopped.

Staged flow: an autonomous deployment starts at a stage. Success: another initial state. Failure: the
episode is kept, the *same* initial state is restored, and the redeployment is watched and corrected
before it fails; both carry one ``pair_id``. Standard flow (the ablation): every episode starts at
the first stage and is watched and corrected at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from dexpie_ros.config import ConfigError, config

PROTECTIVE_STOP = "protective stop"
"""How the reason of a fault begins when the arm stopped itself on contact."""
EMERGENCY_STOP = "emergency stop"


@config
class StageQuota:
    """One stage of a task and what is wanted of it; 0 wants none."""

    name: str
    setup: str = ""
    """how to set the scene up, for a person"""
    demonstrations: int = Field(0, ge=0)
    episodes: int = Field(0, ge=0)
    """deployments and corrections together"""
    pairs: int = Field(0, ge=0)
    """failed deployments with a successful correction of the same start"""
    successes: int = Field(0, ge=0)
    """deployments that succeeded alone"""
    failures: int = Field(0, ge=0)
    """deployments that failed"""


@config
class SessionConfig:
    """One session."""

    stages: tuple[StageQuota, ...]
    purpose: Literal["demonstrations", "improvement"] = "improvement"
    flow: Literal["staged", "standard"] = "staged"
    first_seed: int = Field(0, ge=0)
    """of the initial states; each new one takes the next number"""
    max_corrections: int = Field(2, ge=1)
    """watched redeployments of one start before it is given up"""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"stages {names}: at least one is needed, and each name once")


@dataclass(frozen=True)
class Assignment:
    """The episode to be recorded next."""

    kind: Literal["demonstration", "deployment", "correction"]
    stage: str
    seed: int
    pair_id: str
    prompt: str
    """what the person has to do now"""
    same_start_as: str = ""
    """episode whose first picture shows how the scene has to look"""


@dataclass(frozen=True)
class Finished:
    """An episode that was recorded."""

    episode_id: str
    kind: str
    stage: str
    seed: int
    pair_id: str
    outcome: str
    """success, failure or aborted"""
    cause: str = ""


@dataclass(frozen=True)
class StageProgress:
    """What is there and what is wanted of one stage, by the quotas' names."""

    name: str
    have: dict[str, int]
    wanted: dict[str, int]

    @property
    def complete(self) -> bool:
        return all(self.have[name] >= number for name, number in self.wanted.items())

    @property
    def share(self) -> float:
        """Mean completion of the quotas, 0 .. 1."""
        parts = [min(1.0, self.have[n] / w) for n, w in self.wanted.items() if w > 0]
        return sum(parts) / len(parts) if parts else 1.0


class SessionPlan:
    """Decides which episode comes next."""

    def __init__(self, settings: SessionConfig, history: Iterable[Finished] = ()) -> None:
        self.config = settings
        self._stages = {stage.name: stage for stage in settings.stages}
        self._episodes: list[Finished] = []
        self._skipped: set[str] = set()
        self._repeat: Assignment | None = None
        for episode in history:
            self.finished(episode)

    def next(self) -> Assignment | None:
        """The next assignment, the same until an episode is finished; None when all is there."""
        if self._repeat is not None:
            return self._repeat
        failed = self._uncorrected()
        if failed is not None:
            prompt = f"restore the start of {failed.episode_id}, then correct it before it fails"
            return Assignment(
                "correction", failed.stage, failed.seed, failed.pair_id, prompt, failed.episode_id
            )
        open_stages = [p for p in self.progress() if self._open(p)]
        if not open_stages:
            return None
        stage = self._stages[min(open_stages, key=lambda p: p.share).name]
        seed = self._next_seed()
        setup = stage.setup or "set up the start" + f" of stage {stage.name}" * bool(stage.name)
        if self.config.purpose == "demonstrations":
            return Assignment("demonstration", stage.name, seed, "", f"{setup}; demonstrate")
        if self.config.flow == "standard":
            return Assignment("correction", stage.name, seed, "", f"{setup}; correct if needed")
        pair = f"{stage.name}-{seed:06d}"
        return Assignment("deployment", stage.name, seed, pair, f"{setup}; watch")

    def finished(self, episode: Finished) -> str:
        """Take note of a recorded episode; says what follows, for a person.

        Aborted episodes count for nothing: their assignment comes again. Raises ValueError for a
        stage that the session does not have.
        """
        if episode.stage not in self._stages:
            known = ", ".join(self._stages)
            raise ValueError(f"{episode.episode_id}: no stage {episode.stage!r}; one of {known}")
        if episode.outcome == "aborted":
            self._repeat = self._again(episode)
            return f"{episode.episode_id} aborted: the same start again"
        self._repeat = None
        self._episodes.append(episode)
        following = self.next()
        if following is None:
            return "all that was wanted is there"
        where = f" at {following.stage}" * bool(following.stage)
        return f"next: {following.kind}{where}: {following.prompt}"

    def re_record(self, episode: Finished) -> None:
        """Forget this episode, the last one, and assign its start again.

        ValueError where it is not the last: an earlier one is not forgotten by a key.
        """
        if not self._episodes or self._episodes[-1] != episode:
            raise ValueError(f"{episode.episode_id} is not the last episode of the session")
        self._episodes.pop()
        self._repeat = self._again(episode)

    def repeat(self, assignment: Assignment, episode_id: str) -> None:
        """Assign it again: its recording, ``episode_id``, was thrown away while it ran.

        Where no earlier episode shows how the scene has to look, its own first picture does.
        """
        if not assignment.same_start_as:
            assignment = replace(
                assignment,
                prompt=f"restore the start of {episode_id}; the same {assignment.kind} again",
                same_start_as=episode_id,
            )
        self._repeat = assignment

    def skip_stage(self) -> str:
        """Want no more of the stage whose turn it is; says which."""
        following = self.next()
        if following is None:
            return "nothing is wanted any more"
        self._skipped.add(following.stage)
        self._repeat = None
        return f"stage {following.stage} is left as it is"

    def progress(self) -> tuple[StageProgress, ...]:
        """Every stage, in the task's order."""
        return tuple(self._progress_of(stage) for stage in self.config.stages)

    def _progress_of(self, stage: StageQuota) -> StageProgress:
        of_stage = [e for e in self._episodes if e.stage == stage.name]
        alone = [e for e in of_stage if e.kind == "deployment"]
        if self.config.purpose == "demonstrations":
            good = [e for e in of_stage if e.kind == "demonstration" and e.outcome == "success"]
            return StageProgress(
                stage.name,
                {"demonstrations": len(good)},
                {"demonstrations": stage.demonstrations},
            )
        corrected = {
            e.pair_id for e in of_stage if e.kind == "correction" and e.outcome == "success"
        }
        failed = [e for e in alone if e.outcome == "failure"]
        have = {
            "episodes": sum(e.kind in ("deployment", "correction") for e in of_stage),
            "pairs": sum(e.pair_id in corrected for e in failed if e.pair_id),
            "successes": sum(e.outcome == "success" for e in alone),
            "failures": len(failed),
        }
        wanted = {name: getattr(stage, name) for name in have}
        if self.config.flow == "standard":
            # Nobody deploys alone there, so nothing but episodes can be counted.
            wanted = {"episodes": stage.episodes}
            have = {"episodes": have["episodes"]}
        return StageProgress(stage.name, have, wanted)

    def _open(self, progress: StageProgress) -> bool:
        first_only = self.config.purpose == "improvement" and self.config.flow == "standard"
        if first_only and progress.name != self.config.stages[0].name:
            return False
        return not progress.complete and progress.name not in self._skipped

    def _uncorrected(self) -> Finished | None:
        """The last failed deployment that still wants its watched redeployment."""
        if self.config.purpose != "improvement" or self.config.flow != "staged":
            return None
        failed = [e for e in self._episodes if e.kind == "deployment" and e.outcome == "failure"]
        if not failed or not failed[-1].pair_id or failed[-1].stage in self._skipped:
            return None
        last = failed[-1]
        attempts = [
            e for e in self._episodes if e.kind == "correction" and e.pair_id == last.pair_id
        ]
        done = any(e.outcome == "success" for e in attempts)
        return None if done or len(attempts) >= self.config.max_corrections else last

    def _next_seed(self) -> int:
        used = [e.seed for e in self._episodes]
        return max([self.config.first_seed - 1, *used]) + 1

    def _again(self, episode: Finished) -> Assignment:
        if episode.kind not in ("demonstration", "deployment", "correction"):
            raise ValueError(f"{episode.episode_id}: a session has no episodes of {episode.kind!r}")
        kind: Literal["demonstration", "deployment", "correction"]
        kind = "correction" if episode.kind == "correction" else "deployment"
        if episode.kind == "demonstration":
            kind = "demonstration"
        picture = episode.episode_id
        return Assignment(
            kind,
            episode.stage,
            episode.seed,
            episode.pair_id,
            f"restore the start of {episode.episode_id}; the same {kind} again",
            picture,
        )


def label_of_fault(reason: str) -> tuple[str, str]:
    """Outcome and cause of an episode that a fault ended.

    A protective stop is the task's failure by collision; any other fault says nothing about the
    policy, so the episode is aborted.
    """
    if reason.startswith(PROTECTIVE_STOP):
        return "failure", "collision"
    if reason.startswith(EMERGENCY_STOP):
        return "aborted", EMERGENCY_STOP
    return "aborted", reason or "fault"
