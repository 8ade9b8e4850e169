"""`dexpie train actor`: one actor from recorded episodes, by any recipe and preset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexpie_ros import config as configs
from dexpie_ros.command_line import add_set
from dexpie_ros.episodes.filtering import add_align

if TYPE_CHECKING:
    from rich.progress import Progress

    from dexpie_ros.episodes.align import AlignConfig
    from dexpie_ros.episodes.collection import Collection
    from dexpie_ros.episodes.episode import Episode
    from dexpie_ros.training.train import ActorConfig

RECIPES = ("bc", "hg_dagger", "hg_fast", "recap", "dexhil", "dexpie")
PRESETS = ("cpu", "best", "paper", "authors")
NEEDS_LABELS = ("recap", "dexpie")


def add_actor(actions: Any) -> None:
    """Add `actor` to the actions of `dexpie train`."""
    parser = actions.add_parser("actor", help="train a policy from recorded episodes")
    parser.add_argument(
        "--episodes", type=Path, default=Path("outputs/episodes"), help="where episodes lie"
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, required=True,
        help="which episodes count and how; bc begins with demonstrations alone",
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=PRESETS, default="cpu",
        help="network and training: cpu learns in minutes from a simulator's object poses; the "
        "others see images and want a GPU",
    )  # fmt: skip
    parser.add_argument(
        "--labels", "--tag", default="", metavar="TAG", help="of `dexpie label` (recap, dexpie)"
    )
    parser.add_argument("--config", type=Path, default=None, help="YAML on top of the preset")
    add_align(parser)
    add_set(parser, _preset, after="--recipe and --preset")
    parser.add_argument(
        "--output", type=Path, required=True, help="an interrupted run resumes there"
    )
    parser.add_argument(
        "--cache", type=Path, default=None, help="of pictures; default: cache beside the episodes"
    )
    parser.set_defaults(run=_train_actor, interrupted="the same command goes on from here")


def _train_actor(options: argparse.Namespace) -> int:
    from rich.progress import Progress, TextColumn

    from dexpie_ros.episodes.collection import Collection
    from dexpie_ros.episodes.labels import read_labels
    from dexpie_ros.training.loop import Progress as Step
    from dexpie_ros.training.train import train_actor

    collection = Collection(options.episodes).for_training("actor")
    if options.recipe in NEEDS_LABELS and not options.labels:
        raise configs.ConfigError(
            f"recipe {options.recipe} needs labels: run `dexpie label`, then give --labels TAG"
        )
    align = _align(options)
    episodes = collection.read(align)
    if not episodes:
        raise configs.ConfigError(f"{options.episodes}: no finished episodes to train on")
    settings = _settings(options, episodes)
    labels = None
    if options.labels:
        labels = {e.id: read_labels(e.path, options.labels, steps=len(e)) for e in episodes}
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[loss]}")) as bars:
        if settings.policy.observation.images:
            episodes = _with_pictures(options, settings, collection, align, bars)
        task = bars.add_task(f"actor, {options.recipe}", total=None, loss="")

        def report(step: Step) -> None:
            shown = f"loss {step.loss:.4f}, {step.samples_per_s:.0f} samples/s"
            bars.update(task, completed=step.step, total=step.total, loss=shown)

        def encoding(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, loss="pictures through the encoder")

        policy = train_actor(settings, episodes, labels, options.output, report, encoding)
    print(f"policy: {policy}")
    return 0


def _align(options: argparse.Namespace) -> AlignConfig:
    """How bags are put on the control steps, which must be known before episodes can be read."""
    from dexpie_ros.episodes.cache import CacheConfig

    chosen = _on_top(configs.to_dict(_preset(options)), options)["align"]
    return configs.from_dict(CacheConfig, {"align": chosen}, _where(options)).align


def _settings(options: argparse.Namespace, episodes: Sequence[Episode]) -> ActorConfig:
    """The preset for what ``episodes`` hold, under what was asked for."""
    from dexpie_ros.policy.observation import ObservationSpec
    from dexpie_ros.training.train import ActorConfig, actor_preset

    names = tuple(sorted({name for e in episodes for name in e.object_names}))
    spec = None
    if options.preset == "cpu" and names:
        spec = ObservationSpec(parts=("tcp", "hand", "objects"), object_names=names)
    elif options.preset == "cpu" and "observation" not in (
        _on_top({}, options).get("policy") or {}
    ):
        raise configs.ConfigError(
            f"{options.episodes}: preset cpu looks at objects, whose poses only a simulator "
            "records; these episodes hold none. On a robot take --preset best --set "
            "policy.encoder.weights=FILE (R3M; random to begin from nothing), or say what it shall "
            "look at: --set policy.observation.images=[...]"
        )
    values = _on_top(configs.to_dict(actor_preset(options.preset, options.recipe, spec)), options)
    settings = configs.from_dict(ActorConfig, values, _where(options))
    _refuse_idle(settings, options)
    return settings


def _with_pictures(
    options: argparse.Namespace,
    settings: ActorConfig,
    collection: Collection,
    align: AlignConfig,
    bars: Progress,
) -> list[Episode]:
    """The episodes once more, with pictures from the cache, which is filled first."""
    from dexpie_ros.episodes.cache import Cache, CacheConfig

    cameras, size = settings.policy.observation.images, settings.policy.encoder.image_size
    reading = bars.add_task("pictures into the cache", total=None, loss="")
    root = options.cache or options.episodes.absolute().parent / "cache"
    kept = CacheConfig(align=align, cameras=cameras, image_size=size)
    episodes = Cache(root, kept).episodes(
        collection, lambda done, total, text: bars.update(reading, completed=done, total=total)
    )
    bars.remove_task(reading)
    return episodes


def _where(options: argparse.Namespace) -> str:
    """Stands in messages for where settings come from."""
    return str(options.config or "actor settings")


def _refuse_idle(settings: ActorConfig, options: argparse.Namespace) -> None:
    """ConfigError for what was asked for and would do nothing, or half of what it says."""
    if settings.recipe != options.recipe:
        raise configs.ConfigError(
            f"recipe={settings.recipe} among the settings, --recipe {options.recipe}: presets go by "
            f"recipe; give --recipe {settings.recipe}"
        )
    asked = _on_top({}, options).get("loop") or {}
    if "epochs" in asked and settings.loop.iterations:
        raise configs.ConfigError(
            f"loop.epochs: loop.iterations={settings.loop.iterations} decides how long this preset "
            "trains; set loop.iterations=0 to count epochs"
        )


def _preset(options: argparse.Namespace) -> ActorConfig:
    from dexpie_ros.training.train import actor_preset

    return actor_preset(options.preset, options.recipe or "bc")


def _on_top(preset: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Values of a preset under those of ``--align``, ``--config`` and ``--set``."""
    if options.align is not None:
        preset["align"] = configs.read_yaml(options.align)
    if options.config is not None:
        configs.merge(preset, configs.read_yaml(options.config))
    for override in options.set:
        configs.set_override(preset, override)
    return preset
