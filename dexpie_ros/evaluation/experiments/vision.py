"""What a policy that sees camera images learns on the machine at hand, beside two that do not.

All three learn by BC from the same demonstrations of task A and act on the same held-out starts:

* ``vision``: front and wrist camera, U-Net; what a robot would have;
* ``objects``: the simulator's object poses and the `cpu` preset; an upper bound of a kind;
* ``blind``: its own hand only, otherwise as ``objects``; whatever ``vision`` has more comes from the
  images.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median_high
from typing import Annotated, Any

from pydantic import Field

from dexpie_ros import config as configs
from dexpie_ros.episodes.cache import Cache, CacheConfig
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.evaluation.experiments.folder import claim_plain
from dexpie_ros.evaluation.experiments.results import trials_of
from dexpie_ros.evaluation.statistics import Summary, summarise
from dexpie_ros.policy.observation import ObservationSpec, Part
from dexpie_ros.policy.settings import DenoiserConfig, EncoderConfig
from dexpie_ros.simulation.cell import CellConfig
from dexpie_ros.simulation.lockstep import LockstepConfig, Task
from dexpie_ros.simulation.operator import OperatorConfig
from dexpie_ros.simulation.parallel import run_parallel
from dexpie_ros.simulation.tasks.bottle import BottleConfig
from dexpie_ros.training.loop import Progress
from dexpie_ros.training.train import ActorConfig, actor_preset, train_actor

DEMONSTRATIONS, EVALUATIONS = 950_000_000, 960_000_000
"""First seeds; those of the evaluation are in no data."""
CAMERAS = ("front", "wrist")
POLICIES = ("vision", "objects", "blind")

Say = Callable[[str], None]
Count = Annotated[int, Field(ge=1)]


@configs.config
class VisionConfig:
    """Size of the experiment; the defaults take about a quarter of an hour on two cores."""

    demonstrations: Count = 60
    """Attempts of a careful demonstrator; failed ones are not learned from."""
    trials: Count = 50
    limit_s: Annotated[float, Field(gt=0.0)] = 14.0
    image_size: Count = 64
    channels: tuple[Count, ...] = (32, 64, 128)
    """Of the U-Net; the paper's is 256, 512, 1024."""
    iterations: Count = 2000
    """Of `vision`, batch 64."""
    plain_iterations: Count = 12000
    """Of the policies without images, batch 64."""
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Count = 2


def laboratory(settings: VisionConfig) -> LockstepConfig:
    """Task A, mistakes cost time, no disturbances."""
    cell = CellConfig(bottle=BottleConfig(regime="retry"))
    operator = OperatorConfig(cell=cell, limit=settings.limit_s, correction_limit=settings.limit_s)
    return LockstepConfig(cell=cell, operator=operator, operator_seed=settings.seed)


def run_vision(settings: VisionConfig, root: str | Path, say: Say) -> dict[str, Any]:
    """Collect, train, evaluate; what is there already is kept. Also writes ``root/vision.json``.

    Raises:
        ConfigError: the folder holds the episodes of another laboratory.
    """
    folder = Path(root)
    claim_plain({"seed": settings.seed, "limit_s": settings.limit_s}, folder)
    episodes = _demonstrate(settings, folder, say)
    results: dict[str, Any] = {}
    for name in POLICIES:
        began = time.monotonic()
        policy = train_actor(
            _actor(settings, name), episodes, None, folder / name, _progress(name, say)
        )
        trained = time.monotonic() - began
        say(f"{name}: {settings.trials} held-out starts")
        tasks = [
            Task("evaluation", EVALUATIONS + k, policy_name=name) for k in range(settings.trials)
        ]
        rollouts = run_parallel(laboratory(settings), tasks, None, policy, settings.workers)
        latencies = [t for r in rollouts for t in r.latencies_ms]
        results[name] = {
            **_plain(summarise(trials_of(rollouts), settings.limit_s)),
            "train_s": round(trained, 1),
            "chunk_p50_ms": round(median_high(latencies), 2) if latencies else None,
        }
    content = {
        "settings": configs.to_dict(settings),
        "demonstrations": len(episodes),
        "windows": sum(map(len, episodes)),
        "policies": results,
        **configs.provenance(),
    }
    configs.write_json(folder / "vision.json", content)
    return content


def _demonstrate(settings: VisionConfig, folder: Path, say: Say) -> list[Episode]:
    tasks, wanted = [], set()
    for seed in range(DEMONSTRATIONS, DEMONSTRATIONS + settings.demonstrations):
        name = f"demonstration-{seed}"
        wanted.add(name)
        content = read_episode_file(folder / "episodes" / name)
        if content is None or content.status != "finished":
            tasks.append(Task("demonstration", seed, episode_id=name))
    if tasks:
        say(f"{len(tasks)} demonstrations with images")
        lab = dataclasses.replace(laboratory(settings), images=True)
        run_parallel(lab, tasks, folder / "episodes", workers=settings.workers)
    found = Collection(folder / "episodes").filter(status="finished", outcome="success")
    say("images into the cache")
    cache = Cache(
        folder / "cache",
        CacheConfig(image_size=settings.image_size, workers=settings.workers),
    )
    return [episode for episode in cache.episodes(found) if episode.id in wanted]


def _actor(settings: VisionConfig, name: str) -> ActorConfig:
    if name != "vision":
        parts: tuple[Part, ...] = ("tcp", "hand")
        if name == "objects":
            parts = (*parts, "objects")
        names = ("bottle", "platform") if name == "objects" else ()
        preset = actor_preset("cpu", "bc", ObservationSpec(parts=parts, object_names=names))
        loop = dataclasses.replace(
            preset.loop, iterations=settings.plain_iterations, seed=settings.seed
        )
        return dataclasses.replace(preset, loop=loop)
    preset = actor_preset("cpu", "bc", ObservationSpec(parts=("tcp", "hand"), images=CAMERAS))
    policy = dataclasses.replace(
        preset.policy,
        encoder=EncoderConfig(
            arch="small_cnn", weights="random", image_size=settings.image_size, random_crop=0.05
        ),
        denoiser=DenoiserConfig(
            channels=settings.channels, vector_embedding=128, prefix_conditioning=False
        ),
    )
    loop = dataclasses.replace(
        preset.loop, iterations=settings.iterations, batch_size=64, seed=settings.seed
    )
    return dataclasses.replace(preset, policy=policy, loop=loop)


def _progress(name: str, say: Say) -> Callable[[Progress], None]:
    def report(p: Progress) -> None:
        say(
            f"{name}: step {p.step}/{p.total}, loss {p.loss:.4f}, {p.samples_per_s:.0f} samples/s, "
            f"{p.remaining_s / 60:.0f} min left"
        )

    return report


def _plain(s: Summary) -> dict[str, Any]:
    return {
        "successes": s.successes,
        "n": s.trials,
        "interval": [s.success.low, s.success.high],
        "median_time_s": s.median_s if s.successes else None,
        "restricted_mean_s": s.restricted_mean_s.value,
    }
