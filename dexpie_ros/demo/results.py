"""Fills the report: everything in it is read back from what the run left on disk."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dexpie_ros.config import provenance
from dexpie_ros.control.types import Source
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.report import critic_report
from dexpie_ros.demo.evaluation import STEP_S, live_trials
from dexpie_ros.demo.live import control_periods_ms, latencies_ms
from dexpie_ros.demo.settings import EVALUATION_SEEDS, DemoConfig, seeds
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.labels import Labels
from dexpie_ros.evaluation.experiments.results import trials_of
from dexpie_ros.evaluation.machine import machine
from dexpie_ros.evaluation.report_data import (
    DataSource,
    EpisodeView,
    Frame,
    LiveCheck,
    PolicyResult,
    ReportData,
    Reproduction,
    Timing,
)
from dexpie_ros.simulation.lockstep import Rollout

BC, DEXPIE = "BC", "DexPIE"
FRAMES = 7


@dataclass(frozen=True, eq=False)
class Findings:
    """What the stages of a run gave."""

    episodes: Sequence[Episode]
    labels: Sequence[Labels]
    critic: Critic
    lockstep: dict[str, list[Rollout]]
    """By policy name."""
    live: dict[str, list[Path]]
    realtime: list[Path]
    policy_ids: dict[str, str]


def report_data(settings: DemoConfig, findings: Findings, command: str) -> ReportData:
    """The report's values."""
    notes = {
        BC: "demonstrations only",
        DEXPIE: f"episodes that succeeded, continuous optimality, beta {settings.beta:g}",
    }
    return ReportData(
        title="dexpie demo: from nothing to an improved policy",
        task=f"task A, {settings.task} onto platform, state observation",
        description=_description(settings, findings),
        limit_s=settings.limit_s,
        policies=tuple(
            PolicyResult(name, trials_of(rollouts), notes.get(name, ""))
            for name, rollouts in findings.lockstep.items()
        ),
        baseline=BC,
        live_checks=tuple(_check(name, findings) for name in findings.live),
        episodes=tuple(_views(findings)),
        critic=critic_report(findings.critic, findings.episodes, findings.labels),
        data=tuple(_sources(findings.episodes)),
        timing=tuple(_timing(findings)),
        counters=_counters(findings),
        reproductions=_reproductions(settings, command),
        environment=_environment(settings, findings, command),
        remarks=(
            "Live figures were measured with every process of the graph on the machine named below, "
            "in simulation; no robot took part.",
        ),
    )


def _description(settings: DemoConfig, findings: Findings) -> str:
    live = sum(_made_live(e) for e in findings.episodes)
    return (
        f"A behaviour-cloned policy was trained from demonstrations, deployed, corrected by a "
        f"simulated operator where it failed, and trained again on what succeeded of all that, "
        f"conditioned on what a critic made of it. Both policies then ran on the same {settings.evaluations} held-out "
        f"starts and disturbances. Of the {len(findings.episodes)} training episodes {live} were "
        f"recorded over the live ROS 2 graph, the others by the lockstep runner with the same "
        f"control, operator and recording code. Both policies share network, seed and "
        f"number of training steps ({settings.iterations})."
    )


def _check(name: str, findings: Findings) -> LiveCheck:
    live = live_trials(findings.live[name])
    starts = {trial.start for trial in live}
    same = [t for t in trials_of(findings.lockstep[name]) if t.start in starts]
    return LiveCheck(name, live, tuple(same))


def _made_live(episode: Episode) -> bool:
    return episode.info.note.get("made_by") == "live"


def _sources(episodes: Sequence[Episode]) -> list[DataSource]:
    sources = []
    for kind, name in (
        ("demonstration", "demonstrations"),
        ("deployment", "deployments"),
        ("correction", "watched redeployments"),
    ):
        own = [e for e in episodes if e.info.kind == kind]
        live = sum(map(_made_live, own))
        sources.append(
            DataSource(
                name,
                live=live,
                lockstep=len(own) - live,
                steps=sum(map(len, own)),
                successes=sum(e.success for e in own),
                human_steps=int(sum(e.human.sum() for e in own)),
            )
        )
    return sources


def _views(findings: Findings) -> list[EpisodeView]:
    """A failure, its corrected redeployment (recorded live, so with pictures), a demonstration."""
    pairs = [
        e for e in findings.episodes
        if e.info.kind == "correction" and e.human.any() and _made_live(e)
    ]  # fmt: skip
    chosen: list[tuple[str, Episode]] = []
    corrected = next((e for e in pairs if e.success), pairs[0] if pairs else None)
    if corrected is not None:
        for episode in findings.episodes:
            same = episode.info.pair_id == corrected.info.pair_id
            if same and episode.info.kind == "deployment":
                chosen.append(("Deployment that failed", episode))
        chosen.append(("The same start again, with the operator on watch", corrected))
    demos = [e for e in findings.episodes if e.info.kind == "demonstration"]
    if demos:
        demo = next((e for e in demos if e.success), demos[0])
        chosen.append(("Demonstration", demo))
    by_id = {e.id: item for e, item in zip(findings.episodes, findings.labels, strict=True)}
    return [_view(title, episode, by_id[episode.id]) for title, episode in chosen]


def _view(title: str, episode: Episode, labels: Labels) -> EpisodeView:
    seconds = (episode.time_ns - episode.time_ns[0]) * 1e-9
    return EpisodeView(
        title=f"{title} ({episode.id})",
        time_s=seconds,
        value=np.asarray(labels.value, np.float64),
        human=episode.human,
        blend=episode.source == Source.BLEND,
        optimality=np.asarray(labels.optimality, np.float64),
        outcome=episode.outcome,
        note=episode.cause,
        frames=tuple(_frames(episode, seconds)),
    )


def _frames(episode: Episode, seconds: np.ndarray) -> list[Frame]:
    try:
        images = episode.images("front")
    except EpisodeError:
        return []
    chosen = np.linspace(0, len(episode) - 1, FRAMES).round().astype(int)
    return [
        Frame(float(seconds[k]), images[int(k)], "human" if episode.human[k] else "policy")
        for k in chosen
    ]


def _timing(findings: Findings) -> list[Timing]:
    timing = []
    periods = np.concatenate([control_periods_ms(d) for d in findings.realtime] or [np.zeros(0)])
    if len(periods):
        timing.append(
            Timing(
                "control period, real time", periods, 40.0,
                "between control steps as they reach the recorder; all processes on this machine",
            )
        )  # fmt: skip
    real = np.concatenate([latencies_ms(d) for d in findings.realtime] or [np.zeros(0)])
    if len(real):
        timing.append(Timing("inference latency, live graph in real time", real, 160.0))
    lockstep = [
        ms for rollouts in findings.lockstep.values() for r in rollouts for ms in r.latencies_ms
    ]
    timing.append(
        Timing(
            "inference latency, lockstep", np.array(lockstep), 160.0,
            "160 ms is the longest delay that the prefix covers (4 control steps)",
        )
    )  # fmt: skip
    return timing


def _counters(findings: Findings) -> dict[str, str]:
    rollouts = [r for group in findings.lockstep.values() for r in group]
    seams = np.array([s for r in rollouts for s in r.seams_m]) * 1e3
    counters = {
        "stalls, lockstep": f"{sum(r.stalls for r in rollouts)} of {sum(r.steps for r in rollouts)} steps",
    }
    if len(seams):
        p95 = np.percentile(seams, 95)
        counters["seam between chunks, lockstep"] = (
            f"median {np.median(seams):.2f} mm, p95 {p95:.2f} mm"
        )
    return counters


def _reproductions(settings: DemoConfig, command: str) -> tuple[Reproduction, ...]:
    held_out = seeds(EVALUATION_SEEDS, settings.evaluations, settings)
    span = f"{held_out[0]} to {held_out[-1]}"
    folder = "outputs/demo"
    evaluate = f"dexpie evaluate {folder}/policies/{{}}/policy --demo {folder}"
    return (
        Reproduction("everything", f"{command} --fresh", f"seed {settings.seed}"),
        Reproduction("success of BC", evaluate.format("bc"), span),
        Reproduction("success of DexPIE", evaluate.format("dexpie"), span),
        Reproduction("data", f"dexpie episodes report --root {folder}/episodes"),
        Reproduction(
            "critic", f"dexpie critic report {folder}/critic {folder}/episodes --labels demo"
        ),
    )


def _environment(settings: DemoConfig, findings: Findings, command: str) -> dict[str, str]:
    about = provenance()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "command": command,
        "commit": about["commit"],
        "version": about["version"],
        "machine": machine(),
        "python": platform.python_version(),
        "preset": "cpu (state observation, MLP denoiser, x0 prediction, 10 DDIM steps)",
        "policies": ", ".join(f"{name} {i}" for name, i in findings.policy_ids.items()),
        "critic": findings.critic.hash[:12],
        "episode time limit": f"{settings.limit_s:g} s ({settings.limit_s / STEP_S:.0f} steps)",
    }
