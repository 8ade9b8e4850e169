"""Policies tried in turns on the same starts of a running graph.

Turns, because light, tracking and people change over an afternoon: whichever policy had the later
half would have them to itself. Whoever judges is not told which policy drives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.evaluation.recorded import LIMIT
from dexpie_ros.nodes.base import interface
from dexpie_ros.nodes.session_client import GraphError, SessionClient

HOME_S = 120.0
"""The way home is at most a few seconds long; a service that says nothing for so long is lost."""

TRIES, PATIENCE_S = 4, 5.0
"""To begin a trial where a node is silent, and s between them."""

Done = Collection[tuple[int, str]]
"""(start, policy) of the trials that count already."""


@dataclass(frozen=True)
class Turns:
    """Which policy is tried on which start, in which order."""

    policies: tuple[str, ...]
    """Directories, as the policy server finds them."""
    starts: int
    first_start: int = 0

    def order(self) -> list[tuple[int, str]]:
        """Start by start; who begins changes with each."""
        turns = []
        for k in range(self.starts):
            shift = k % len(self.policies)
            turn = (*self.policies[shift:], *self.policies[:shift])
            turns += [(self.first_start + k, policy) for policy in turn]
        return turns

    def left(self, done: Done) -> list[tuple[int, str]]:
        """Those that were not tried yet."""
        return [trial for trial in self.order() if trial not in done]


class Trials:
    """Asks the session of a running graph for one evaluation episode after the other."""

    def __init__(
        self,
        client: SessionClient,
        directory: Path,
        limit_s: float,
        ready: Callable[[int], bool],
        say: Callable[[str], None],
        home: bool,
    ) -> None:
        """``ready`` is asked before each trial whether its start is set up; False ends it all.

        ``home``: the robot travels home before each.
        """
        self._client, self._directory, self._limit_s = client, directory, limit_s
        self._ready, self._say = ready, say
        self._home = client.node.client("/intervention/home") if home else None

    def run(self, turns: Turns, done: Done) -> int:
        """Until all were tried, or ``ready`` says no; how many trials were made.

        Raises:
            GraphError: the graph refused something or does not answer.
        """
        left, total, made = turns.left(done), len(turns.order()), 0
        while left:
            start, policy = left[0]
            self._go_home()
            self._say(f"trial {total - len(left) + 1} of {total}, start {start}")
            if not self._ready(start):
                break
            outcome = self._try(start, policy)
            self._say(f"  {outcome}")
            if outcome in ("success", "failure"):
                left.pop(0)
                made += 1
            else:
                self._say("  counts for nothing; the same start again")
        return made

    def _try(self, start: int, policy: str) -> str:
        """One episode; its outcome."""
        client, name = self._client, self._start(start, policy)
        end = time.monotonic() + self._limit_s
        try:
            while client.running and time.monotonic() < end:
                client.spin_for(0.1)
        except KeyboardInterrupt:
            client.end("aborted", "interrupted")
            raise
        if client.running:
            try:
                client.end("failure", "timeout")
            except GraphError:
                if client.running:  # else somebody judged it at the same moment
                    raise
        client.wait_end()
        found = read_episode_file(self._directory / name)
        return (found.info.outcome if found is not None else "") or "aborted"

    def _start(self, start: int, policy: str) -> str:
        """Begin a trial; its episode's id. A node that is just coming up is waited for."""
        tries = TRIES
        while True:
            tries -= 1
            try:
                return self._client.start(
                    "evaluation",
                    seed=start,
                    policy_id=policy,
                    episode_id=f"trial-{time.strftime('%Y%m%d-%H%M%S')}-{start}",
                    directory=str(self._directory),
                    note={LIMIT: self._limit_s},
                )
            except GraphError as error:
                if not tries or "silent" not in str(error) or self._client.running:
                    raise
                self._say(f"  {error}; again in {PATIENCE_S:g} s")
                self._client.spin_for(PATIENCE_S)

    def _go_home(self) -> None:
        if self._home is None:
            return
        if not self._home.wait_for_service(timeout_sec=10.0):
            raise self._client.error("/intervention/home is not there: is the arbiter up?")
        asked = self._home.call_async(interface("std_srvs/srv/Trigger").Request())
        end = time.monotonic() + HOME_S
        while not asked.done():
            self._client.spin_for(0.1)
            if time.monotonic() > end:
                raise self._client.error(f"/intervention/home: no answer within {HOME_S:g} s")
        if not asked.result().success:
            raise self._client.error(f"/intervention/home: {asked.result().message}")


def policies_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """Absolute paths of policies; GraphError for what is none, or is there twice."""
    found = [folder.resolve() for folder in folders]
    for folder in found:
        if not (folder / "config.yaml").is_file():
            raise GraphError(
                f"{folder}: no policy (no config.yaml); give the folder `policy` of a run"
            )
    if len(set(found)) < len(found):
        raise GraphError("a policy is there twice; give different ones")
    return tuple(map(str, found))
