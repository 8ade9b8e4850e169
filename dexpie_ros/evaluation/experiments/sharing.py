"""What the variants of a unit have in common: demonstrations, and the BC that they are deployed with.

They differ in the collection only, which comes after; made once, it is also plain that the same
policy was deployed.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from dexpie_ros.evaluation.experiments.settings import ExperimentConfig, Unit


def first_variant(settings: ExperimentConfig, unit: Unit) -> Unit:
    """The unit whose demonstrations and BC ``unit`` has."""
    return replace(unit, variant=settings.variants[0].name, round=1)


def copy_beginning(source: Path, target: Path) -> None:
    """Copy what is there of demonstrations and BC from one unit's folder to another's, where it is
    missing; labels, which are of the other's critic, stay behind. Nothing is seen half copied.
    """
    found = [*source.glob("episodes/demonstration-*"), source / "arms" / "bc"]
    copying = target / ".copying"
    for folder in found:
        kept = target / folder.relative_to(source)
        if kept.exists() or not folder.is_dir():
            continue
        shutil.rmtree(copying, ignore_errors=True)
        shutil.copytree(folder, copying, ignore=shutil.ignore_patterns("labels"))
        kept.parent.mkdir(parents=True, exist_ok=True)
        copying.rename(kept)
