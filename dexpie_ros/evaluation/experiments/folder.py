"""Whose folder it is: one experiment, one run at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dexpie_ros import config as configs
from dexpie_ros.evaluation.experiments.settings import ExperimentConfig

LOCK = ".lock"
_GROWING = ("seeds", "first_seed", "trials", "tasks", "regimes", "rounds")
"""What may be more (or less) in another call of the same experiment."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Refuses a folder in which a run is at work, or a job that outlived its run."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise configs.ConfigError(
                f"{folder}: another run is at work in this folder; wait for its end, or end it"
            ) from None
        fcntl.flock(stream, fcntl.LOCK_SH)  # every job holds it as well
        yield


def claim(settings: ExperimentConfig, folder: Path) -> None:
    """Keep the settings as ``folder/experiment.yaml``; a folder of another experiment is refused."""
    check(settings, folder)
    configs.save_yaml(settings, folder / "experiment.yaml")


def check(settings: ExperimentConfig, folder: Path) -> None:
    """Raises ConfigError where ``folder`` is another experiment's; one without settings is nobody's."""
    path = folder / "experiment.yaml"
    if path.is_file():
        other = differing(configs.read_yaml(path), configs.to_dict(settings), str(path))
        if other:
            raise _another(path, other)


def claim_plain(settings: Mapping[str, Any], folder: Path) -> None:
    """The same of a smaller experiment: keeps what its recorded episodes depend on, or refuses."""
    path = folder / "experiment.yaml"
    if path.is_file():
        then = configs.read_yaml(path)
        other = [key for key, value in settings.items() if then.get(key) != value]
        if other:
            raise _another(path, other)
    configs.write_atomic(path, yaml.safe_dump(dict(settings)))


def _another(path: Path, other: Sequence[str]) -> configs.ConfigError:
    return configs.ConfigError(
        f"{path}: another experiment (differs in {', '.join(other)}); choose another folder, or "
        "delete this one"
    )


def differing(
    before: Mapping[str, Any], now: Mapping[str, Any], where: str = "experiment"
) -> list[str]:
    """Settings that make ``now`` another experiment than ``before`` (both plain values).

    More or fewer seeds, trials, tasks, regimes and rounds do not, nor do more arms and variants.

    Raises:
        ConfigError: ``before`` holds no settings of an experiment; it names ``where`` they stood.
    """
    # A setting that did not exist when the folder was begun had its default, also one of an arm.
    then = configs.to_dict(configs.from_dict(ExperimentConfig, before, where))
    other = [key for key in now if key not in _GROWING and then[key] != now[key]]
    if "variants" in other and _grown(then["variants"], now["variants"]):
        other.remove("variants")
    if "arms" in other and {**now["arms"], **then["arms"]} == now["arms"]:
        other.remove("arms")
    return other


def _grown(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> bool:
    """Whether the variants are the same but for arms, and variants behind them, that were added."""
    return len(before) <= len(now) and all(
        {**old, "arms": ()} == {**new, "arms": ()} and set(old["arms"]) <= set(new["arms"])
        for old, new in zip(before, now, strict=False)
    )
