"""The paper's special failure case (appendix B.3): what the critic cannot see, it blames on others.

In a share of the episodes the hand runs into a plate that no camera shows. Until then these
episodes look like any other, so a critic that learns from them lowers the value of *every* approach
and then sees the passage of the spot as progress. Two remedies are tried beside it: leaving those
episodes out (their ``cause`` is ``collision``), and giving the critic the missing signal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config as configs
from dexpie_ros.control.types import STEP_NS
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.settings import CriticConfig, best
from dexpie_ros.critic.train import train_critic
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.errors import ExperimentError
from dexpie_ros.evaluation.experiments.folder import claim_plain
from dexpie_ros.evaluation.html import below, escape
from dexpie_ros.evaluation.statistics import Interval, paired_difference
from dexpie_ros.simulation.cell import CellConfig
from dexpie_ros.simulation.collision import PLATE, CollisionConfig
from dexpie_ros.simulation.lockstep import LockstepConfig, LockstepRunner, Task
from dexpie_ros.simulation.operator import OperatorConfig

FIRST_SEED = 900_000_000
CRITICS = ("everything", "excluded", "signal")
"""everything: all episodes, blind to the plate. excluded: blind, without the collisions. signal: all
episodes, and the plate's pose among the features."""
WINDOW = 25
"""Steps before and after an approach reaches the spot over which values are compared."""


@dataclass(frozen=True, eq=False)
class CollisionResult:
    """Values of innocent approaches under the three critics."""

    episodes: int
    collisions: int
    profile: dict[str, NDArray[np.float64]]
    """By critic: mean value of successful episodes (2 x WINDOW + 1,), aligned at the moment at
    which the hand reaches the spot where the plate would lie."""
    blame: dict[str, Interval]
    """By critic but `excluded`: how much lower it values innocent episodes in the window before
    the spot than `excluded` does; negative is blame. Bootstrap over episodes."""
    rise: dict[str, Interval]
    """By critic but `excluded`: how much more its value of innocent episodes rises from the window
    before the spot to the one behind it; positive is progress that is none. Bootstrap likewise."""
    success_auroc: dict[str, float | None]
    """By critic: value as a forecast of the outcome on episodes that it did not see; None where all
    of them ended alike."""


def critic_settings() -> CriticConfig:
    """L as in the published figures (docs/critic.md), although 405 steps can occur: of a failure so
    long the returns of the first five steps are clipped. Failures are what it is about: all three
    critics learn from those that they are given.
    """
    settings = best(400)
    return dataclasses.replace(
        settings, returns=dataclasses.replace(settings.returns, failures="learn")
    )


def record(root: str | Path, episodes: int = 80, plate: float = 0.35) -> list[Episode]:
    """Demonstrations, some of which run into the plate; what is there already is kept.

    Raises:
        ConfigError: the folder holds episodes with another share of plates.
    """
    folder = Path(root) / "episodes"
    claim_plain({"plate": plate}, Path(root))
    cell = CellConfig(collision=CollisionConfig(plate=plate))
    lab = LockstepConfig(cell=cell, operator=OperatorConfig(cell=cell))
    wanted = {
        f"demonstration-{seed:09d}": seed for seed in range(FIRST_SEED, FIRST_SEED + episodes)
    }
    missing = {}
    for name, seed in wanted.items():
        content = read_episode_file(folder / name)
        if content is None or content.status != "finished":
            missing[name] = seed
    if missing:
        runner = LockstepRunner(lab)
        try:
            for name, seed in missing.items():
                runner.run(Task("demonstration", seed, episode_id=name), folder)
        finally:
            runner.close()
    found = Collection(folder).filter(status="finished").read()
    return [episode for episode in found if episode.id in wanted]


def run_collision(
    root: str | Path,
    episodes: int = 80,
    plate: float = 0.35,
    settings: CriticConfig | None = None,
) -> CollisionResult:
    """Record, train the three critics, compare; results also in ``root/collision.json``.

    Raises:
        ExperimentError: no collision, or no success, happened.
    """
    found = record(root, episodes, plate)
    hit = [e.cause == "collision" for e in found]
    innocent = [e for e in found if e.success]
    if not any(hit) or len(innocent) < 4:
        raise ExperimentError(
            f"{root}: {sum(hit)} collisions and {len(innocent)} successes in {len(found)} "
            "episodes; change plate or record more"
        )
    critics = _critics(found, settings or critic_settings())
    values = {name: [critic.values(e) for e in innocent] for name, critic in critics.items()}
    reach = float(np.median([_distance(e)[-1] for e, h in zip(found, hit, strict=True) if h]))
    at = [_spot(e, reach) for e in innocent]

    def against_excluded(
        measure: Callable[[NDArray[np.float64], int], float],
    ) -> dict[str, Interval]:
        measured = {
            name: [measure(v, t) for v, t in zip(rows, at, strict=True)]
            for name, rows in values.items()
        }
        return {
            name: paired_difference(measured[name], measured["excluded"])
            for name in CRITICS
            if name != "excluded"
        }

    result = CollisionResult(
        len(found),
        sum(hit),
        {name: _profile(rows, at) for name, rows in values.items()},
        against_excluded(_before),
        against_excluded(_rise),
        {name: c.metrics["held_out"]["success_auroc"]["value"] for name, c in critics.items()},
    )
    plain = {
        "episodes": result.episodes,
        "collisions": result.collisions,
        "blame": {k: [v.value, v.low, v.high] for k, v in result.blame.items()},
        "rise": {k: [v.value, v.low, v.high] for k, v in result.rise.items()},
        "success_auroc": result.success_auroc,
        "profile": {k: v.round(5).tolist() for k, v in result.profile.items()},
        **configs.provenance(),
    }
    configs.write_json(Path(root) / "collision.json", plain)
    return result


def write_page(root: str | Path, result: CollisionResult, command: str, date: str) -> Path:
    """``root/report.html``: is the blame there, and does either remedy take it away?"""
    seconds = np.arange(-WINDOW, WINDOW + 1) * STEP_NS * 1e-9
    said = {
        "everything": "all episodes, blind to the cause",
        "excluded": "collisions left out (use_for_critic: false)",
        "signal": "all episodes, the missing signal among the features",
    }
    rows = [
        [
            escape(name),
            escape(said[name]),
            _interval(result.blame.get(name)),
            _interval(result.rise.get(name)),
            "–" if result.success_auroc[name] is None else f"{result.success_auroc[name]:.2f}",
        ]
        for name in CRITICS
    ]
    drawn = plots.profiles(
        CRITICS,
        seconds,
        [result.profile[name] for name in CRITICS],
        "seconds from where others collided, in episodes that nothing went wrong in",
        "mean value",
    )
    heads = ["critic", "learned from", "value before the spot, against `excluded`",
             "rise over the spot, against `excluded`", "AUROC success/failure, held out"]  # fmt: skip
    body = (
        "<header><h1>A failure that the images cannot explain</h1>"
        f"<p>{escape(date)}</p><p>In {result.collisions} of {result.episodes} episodes the hand "
        "ran into a plate that no camera shows. How do critics value the same approach in episodes "
        "in which nothing was in the way?</p></header>"
        + html.table(heads, rows, (2, 3, 4))
        + html.figure(drawn, "A dip before the spot and a rise behind it is blame.", "values")
        + html.table(["", ""], [["command", f"<code>{escape(command)}</code>"]])
    )
    configs.write_atomic(Path(root) / "report.html", html.page("Collision", body))
    return Path(root) / "report.html"


def _interval(d: Interval | None) -> str:
    return "–" if d is None else f"{d.value:+.3f}" + below(f"[{d.low:+.3f}, {d.high:+.3f}]")


def _critics(episodes: Sequence[Episode], settings: CriticConfig) -> dict[str, Critic]:
    names = tuple(n for n in episodes[0].object_names if n != PLATE)
    blind = dataclasses.replace(settings.features, object_names=names)
    seeing = dataclasses.replace(settings.features, object_names=(*names, PLATE))
    kept = [
        dataclasses.replace(
            e, info=dataclasses.replace(e.info, use_for_critic=e.cause != "collision")
        )
        for e in episodes
    ]
    return {
        "everything": train_critic(dataclasses.replace(settings, features=blind), episodes),
        "excluded": train_critic(dataclasses.replace(settings, features=blind), kept),
        "signal": train_critic(dataclasses.replace(settings, features=seeing), episodes),
    }


def _distance(episode: Episode) -> NDArray[np.float64]:
    """(T,) m from the TCP to the bottle."""
    bottle = episode.objects[:, episode.object_index("bottle"), :3]
    return np.asarray(np.linalg.norm(episode.tcp[:, :3, 3] - bottle, axis=1))


def _spot(episode: Episode, reach: float) -> int:
    """The first step at which the hand is as near to the bottle as it was where it collided."""
    return int(np.argmax(_distance(episode) <= reach))


def _before(values: NDArray[np.float64], at: int) -> float:
    return float(values[max(0, at - WINDOW) : max(1, at)].mean())


def _rise(values: NDArray[np.float64], at: int) -> float:
    return float(values[at : at + WINDOW].mean()) - _before(values, at)


def _profile(rows: Sequence[NDArray[np.float64]], at: Sequence[int]) -> NDArray[np.float64]:
    steps = np.arange(-WINDOW, WINDOW + 1)
    return np.mean(
        [v[np.clip(steps + t, 0, len(v) - 1)] for v, t in zip(rows, at, strict=True)], axis=0
    )
