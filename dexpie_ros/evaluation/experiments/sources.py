"""Where an experiment's figures come from: policies, data and commits of every evaluation, the
losses of every training, what the logs say of jobs that failed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config as configs
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.evaluation.experiments.jobs import FAILED
from dexpie_ros.evaluation.experiments.settings import ExperimentConfig

POINTS = 40
"""Of a learning curve; more cannot be told apart in the figure."""


@dataclass(frozen=True)
class Source:
    """What one evaluation was made of; empty where the files do not say."""

    unit: str
    arm: str
    policy_id: str
    trained_at: str
    """Commit of the code that trained the policy."""
    evaluated_at: str
    data_sha256: str
    """Of the training windows."""
    prepared_at: tuple[str, ...] = ()
    """Commits that recorded the unit's episodes and trained its critics."""


def load_sources(settings: ExperimentConfig, root: str | Path) -> list[Source]:
    """One for each evaluation that is there."""
    out = []
    for unit in settings.units():
        folder = Path(root) / unit.folder
        prepared = _prepared(folder)
        for arm in settings.arms_of(unit):
            path = folder / "evaluation" / f"{arm}.json"
            if not path.is_file():
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
            run_path = folder / "arms" / arm / "run.yaml"
            run = configs.read_yaml(run_path) if run_path.is_file() else {}
            out.append(
                Source(
                    unit.folder,
                    arm,
                    str(content.get("policy_id", "")),
                    str(run.get("provenance", {}).get("commit", "")),
                    str(content.get("provenance", {}).get("commit", "")),
                    str(run.get("data_sha256", "")),
                    prepared,
                )
            )
    return out


def _prepared(folder: Path) -> tuple[str, ...]:
    found = set()
    for path in sorted(folder.glob("critic-*/critic.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        found.add(str(about.get("provenance", {}).get("commit", "")))
    for path in sorted(folder.glob("episodes/*/")):
        with contextlib.suppress(EpisodeError):  # one that an interruption left half-way
            content = read_episode_file(path)
            found.add(content.info.software.get("commit", "") if content is not None else "")
    return tuple(sorted(found - {""}))


def commits(sources: Sequence[Source]) -> tuple[str, ...]:
    """All commits whose code took part, sorted; a fair comparison has one."""
    found = {c for s in sources for c in (s.trained_at, s.evaluated_at, *s.prepared_at) if c}
    return tuple(sorted(found))


def mixture(found: Sequence[str]) -> str:
    """A warning where results of several commits stand side by side, else empty."""
    if len(found) < 2:
        return ""
    return (
        f"These results mix {len(found)} commits of the code ({', '.join(found)}): a difference "
        "between arms or seeds may be a difference between versions. Run the experiment anew in an "
        "empty folder before claiming anything from it."
    )


def learning_curves(
    settings: ExperimentConfig, root: str | Path, cell: str, variant: str, round: int = 1
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Training loss by arm: steps (n,) and the mean loss over seeds (n,)."""
    out = {}
    units = [u for u in settings.units() if (u.cell, u.variant, u.round) == (cell, variant, round)]
    for arm in settings.arms_of(units[0]) if units else ():
        paths = [Path(root) / u.folder / "arms" / arm / "metrics.jsonl" for u in units]
        each = [_losses(path) for path in paths if path.is_file()]
        each = [c for c in each if len(c)]
        if each:
            last = min(c[-1, 0] for c in each)
            first = max(c[0, 0] for c in each)
            steps = np.linspace(first, last, POINTS)
            losses = [np.interp(steps, c[:, 0], c[:, 1]) for c in each]
            out[arm] = (steps, np.mean(losses, axis=0))
    return out


def _losses(path: Path) -> NDArray[np.float64]:
    """Steps and losses (n, 2) of a metrics.jsonl; a line cut short by an interruption is skipped."""
    rows: dict[int, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values: dict[str, Any] = json.loads(line)
            rows[int(values["step"])] = float(values["loss"])
        except (ValueError, KeyError):
            continue
    return np.array(sorted(rows.items()), np.float64).reshape(-1, 2)


def failures(settings: ExperimentConfig, root: str | Path) -> tuple[str, ...]:
    """What the logs of all units say of jobs that failed, also in earlier calls."""
    out: dict[str, None] = {}
    for unit in settings.units():
        path = Path(root) / unit.folder / "log.txt"
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                if FAILED in line:
                    out[f"{unit.folder}: {line}"] = None
    return tuple(out)


def critic_reports(settings: ExperimentConfig, root: str | Path) -> list[dict[str, Any]]:
    """What `dexpie critic report` said of every unit's critics, with ``unit``, ``labels``, ``hash``."""
    out = []
    for unit in settings.units():
        for path in sorted((Path(root) / unit.folder).glob("critic-*/report*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            about = path.parent / "critic.json"
            known = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
            labels = path.parent.name.removeprefix("critic-")
            if path.stem != "report":
                labels = path.stem.removeprefix("report-")
            out.append(
                {
                    "unit": unit.folder,
                    "cell": unit.cell,
                    "labels": labels,
                    "hash": str(known.get("hash", "")),
                    **content,
                }
            )
    return out


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json keeps of a critic report: means with their 95 % intervals over episodes."""
    metrics = report["metrics"] or {}
    held, seen = metrics.get("held_out"), metrics.get("in_sample")
    return {
        "unit": report["unit"],
        "labels": report["labels"],
        "held_out_explained_variance": held and _three(held["explained_variance"]),
        "in_sample_explained_variance": seen and _three(seen["explained_variance"]),
        "held_out_success_auroc": held and _three(held["success_auroc"]),
        "auc": {e["event"]: [*_three(e["auc"]), e["ceiling"]] for e in report["events"]},
        "auc_next_ten_steps": {
            e["event"]: [*_three(e["auc"]), e["ceiling"]] for e in report["events_sharp"]
        },
        "optimal": {s["source"]: s["optimal"] for s in report["sources"]},
        "advantage_quantiles": report["advantage_quantiles"],
        "corrections": report["corrections"],
        "failed_corrections": report["failed_corrections"],
        "warnings": report["warnings"],
    }


def _three(interval: Mapping[str, Any]) -> list[Any]:
    return [interval["value"], interval["low"], interval["high"]]
