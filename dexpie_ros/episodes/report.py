"""What a collection holds: counts, lengths, success and intervention, by stage and policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.episodes.annotations import read_annotations
from dexpie_ros.episodes.collection import Collection, Entry
from dexpie_ros.episodes.episode import KINDS, EpisodeError
from dexpie_ros.episodes.reader import read_episode


@dataclass(frozen=True)
class Group:
    """Episodes of one kind, stage and policy; of an episode with annotated stages the part in it."""

    kind: str
    stage: str
    policy_id: str
    episodes: int
    successes: int
    failures: int
    steps: int
    human_steps: int
    median_s: float
    longest_s: float
    with_intervention: int
    """Episodes with at least one human step."""
    causes: tuple[tuple[str, int], ...]
    """Of failures, most frequent first."""

    @property
    def success_share(self) -> float:
        """Of the judged episodes; NaN if none was."""
        judged = self.successes + self.failures
        return self.successes / judged if judged else float("nan")

    @property
    def human_share(self) -> float:
        """Of the control steps; NaN without any."""
        return self.human_steps / self.steps if self.steps else float("nan")


@dataclass(frozen=True)
class Report:
    """A collection in figures."""

    root: Path
    groups: tuple[Group, ...]
    total: Group
    statuses: dict[str, int]
    """Episodes by status, ``broken`` included."""
    excluded_from_critic: int
    excluded_from_actor: int
    messages_dropped: int
    errors: tuple[str, ...]

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.root}: {sum(self.statuses.values())} episodes ("
            + ", ".join(f"{n} {name}" for name, n in sorted(self.statuses.items()))
            + f"), {self.total.steps * STEP_NS / 6e10:.1f} min",
            f"{'kind':14} {'stage':12} {'policy':20} {'n':>5} {'success':>8} {'human':>7} "
            f"{'median s':>9} {'longest':>8}  failures",
        ]
        for g in (*self.groups, self.total):
            causes = ", ".join(f"{name or 'unnamed'} {n}" for name, n in g.causes[:4])
            lines.append(
                f"{g.kind:14} {g.stage or '-':12.12} {g.policy_id or '-':20.20} {g.episodes:5d} "
                f"{_percent(g.success_share):>8} {_percent(g.human_share):>7} {g.median_s:9.1f} "
                f"{g.longest_s:8.1f}  {causes}"
            )
        lines.append(
            f"excluded: {self.excluded_from_critic} from the critic, {self.excluded_from_actor} from "
            f"the actor; messages lost while recording: {self.messages_dropped}"
        )
        return "\n".join([*lines, *self.errors])


def report(collection: Collection) -> Report:
    """Count what is there. Reads descriptions only; bags only of episodes with annotated stages."""
    known = [entry for entry in collection if entry.content is not None]
    errors = [entry.error for entry in collection if entry.error]
    parts = [part for entry in known for part in _parts(entry, errors)]
    keys = sorted(
        {part.key for part in parts},
        key=lambda k: (list(KINDS).index(k[0]) if k[0] in KINDS else 9, *k[1:]),
    )
    return Report(
        root=collection.root,
        groups=tuple(_group(*key, [part for part in parts if part.key == key]) for key in keys),
        total=_group("all", "", "", [_whole(entry) for entry in known]),
        statuses=dict(Counter(entry.status for entry in collection)),
        excluded_from_critic=sum(not e.info.use_for_critic for e in known),
        excluded_from_actor=sum(not e.info.use_for_actor for e in known),
        messages_dropped=sum(_dropped(e) for e in known),
        errors=tuple(errors),
    )


def picture(report: Report, path: str | Path) -> None:
    """Success, intervention and length by group, as PNG, SVG or PDF by the ending of ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = report.groups or (report.total,)
    names = [f"{g.kind}\n{g.stage or 'whole task'}\n{g.policy_id or '-'}" for g in groups]
    figure = Figure(figsize=(2.5 + 1.6 * len(groups), 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(3, 1, sharex=True)
    x = range(len(groups))
    bars = rows[0].bar(x, [100 * _zero(g.success_share) for g in groups], color="#0072B2")
    rows[0].bar_label(bars, [f"{g.successes}/{g.successes + g.failures}" for g in groups])
    rows[0].set(ylabel="success, %", ylim=(0, 110), title=str(report.root))
    bars = rows[1].bar(x, [100 * _zero(g.human_share) for g in groups], color="#E69F00")
    rows[1].bar_label(bars, [f"{g.with_intervention} of {g.episodes}" for g in groups])
    rows[1].set(ylabel="steps by the operator, %", ylim=(0, 110))
    bars = rows[2].bar(x, [g.median_s for g in groups], color="#8a8a8a")
    rows[2].bar_label(bars, [f"{g.median_s:.1f}" for g in groups])
    rows[2].set(ylabel="median length, s")
    rows[2].set_xticks(list(x), names)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


@dataclass(frozen=True)
class _Part:
    """One stage of an episode, or all of it."""

    key: tuple[str, str, str]
    steps: int
    human_steps: int
    outcome: str
    cause: str


def _whole(entry: Entry) -> _Part:
    assert entry.content is not None
    info, content = entry.info, entry.content
    key = (info.kind, info.stage, info.policy_id)
    return _Part(key, content.steps, content.human_steps, info.outcome, info.cause)


def _parts(entry: Entry, errors: list[str]) -> list[_Part]:
    """By annotated stages: those before the last have succeeded, the last ended as the episode."""
    whole = _whole(entry)
    if not read_annotations(entry.path).current.stages:
        return [whole]
    try:
        episode = read_episode(entry.path)
    except EpisodeError as error:
        errors.append(str(error))
        return [whole]
    stages = np.array(episode.stage_names)
    names = list(dict.fromkeys(episode.stage_names))
    judged = "success" if whole.outcome in ("success", "failure") else whole.outcome
    parts = []
    for name in names:
        rows, last = stages == name, name == stages[-1]
        parts.append(
            _Part(
                (whole.key[0], name, whole.key[2]),
                int(rows.sum()),
                int(episode.human[rows].sum()),
                whole.outcome if last else judged,
                whole.cause if last else "",
            )
        )
    return parts


def _group(kind: str, stage: str, policy_id: str, contents: Sequence[_Part]) -> Group:
    lengths = [c.steps * STEP_NS / 1e9 for c in contents]
    causes = Counter(c.cause for c in contents if c.outcome == "failure")
    return Group(
        kind=kind,
        stage=stage,
        policy_id=policy_id,
        episodes=len(contents),
        successes=sum(c.outcome == "success" for c in contents),
        failures=sum(c.outcome == "failure" for c in contents),
        steps=sum(c.steps for c in contents),
        human_steps=sum(c.human_steps for c in contents),
        median_s=median(lengths) if lengths else 0.0,
        longest_s=max(lengths, default=0.0),
        with_intervention=sum(c.human_steps > 0 for c in contents),
        causes=tuple(causes.most_common()),
    )


def _dropped(entry: Entry) -> int:
    streams = entry.content.statistics.get("streams", {}) if entry.content else {}
    if not isinstance(streams, dict):
        return 0
    figures = [stream.get("dropped", 0) for stream in streams.values() if isinstance(stream, dict)]
    return sum(n for n in figures if isinstance(n, int))


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.0f} %"


def _zero(share: float) -> float:
    return 0.0 if share != share else share
