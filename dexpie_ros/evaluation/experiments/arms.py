"""The arms of an experiment: methods, and what an ablation may change about one."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.training.recipes import Recipe

LabelSet = Literal["", "best", "paper"]


@config
class Arm:
    """One method: a recipe and the labels that it is conditioned on."""

    recipe: Recipe
    labels: LabelSet = ""
    beta: Annotated[float, Field(ge=0.0)] = 1.0
    """Guidance; used where the recipe has a condition. 1: none, as in preset `cpu`."""
    critic: tuple[str, ...] = ()
    """``key=value`` on the critic's preset, for instance ``crossfit=0``: a critic of its own."""
    label: tuple[str, ...] = ()
    """On the labels' preset, for instance ``advantage.window=12``: labels of its own."""
    actor: tuple[str, ...] = ()
    """On the actor's settings, for instance ``data.human_share=0.5``."""
    warm_start: bool = False
    """Train on from the unit's BC instead of from scratch, with the normaliser of BC."""
    execution_horizon: Annotated[int, Field(ge=0)] = 0
    """Steps from one plan to the next when the arm is evaluated; 0: the laboratory's."""

    def __post_init__(self) -> None:
        if (self.recipe in ("recap", "dexpie")) != bool(self.labels):
            raise ValueError(
                f"recipe {self.recipe} with labels {self.labels!r}: recap and dexpie need best or "
                "paper, the others take none"
            )
        if self.warm_start and self.recipe == "bc":
            raise ValueError("warm_start: recipe bc is what the others start from")
        if (self.critic or self.label) and not self.labels:
            raise ValueError(f"recipe {self.recipe} has no labels: critic and label change nothing")

    @property
    def critic_name(self) -> str:
        """Arms with the same name share a critic."""
        return _named(self.labels, self.critic)

    @property
    def tag(self) -> str:
        """Arms with the same tag share labels."""
        return _named(self.critic_name, self.label)


def _named(name: str, overrides: tuple[str, ...]) -> str:
    if not overrides:
        return name
    digest = hashlib.sha256(json.dumps(sorted(overrides)).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


_ALL_EQUALLY = ("data.weights.intervention=1", "data.weights.failure=1")

ARMS: dict[str, Arm] = {
    "bc": Arm("bc"),
    "hg_dagger": Arm("hg_dagger"),
    "hg_fast": Arm("hg_fast"),
    "dexhil": Arm("dexhil"),
    "recap": Arm("recap", "best"),
    "dexpie": Arm("dexpie", "best"),
    "recap_paper": Arm("recap", "paper", beta=1.5, actor=_ALL_EQUALLY),
    "dexpie_paper": Arm("dexpie", "paper", beta=1.5, actor=_ALL_EQUALLY),
}
"""`..._paper`: critic, labels, sampling and guidance as the paper's text has them. Everything else is shared."""
