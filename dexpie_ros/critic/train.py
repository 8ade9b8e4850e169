"""Train a critic: folds by episode, early stopping on pooled held-out error.

The critic's great danger is memory: a network that knows its own episodes' returns by heart gives
advantages near zero everywhere. So every fold is trained without the episodes that it will label,
and all folds stop at the one epoch at which the error on unseen episodes, pooled, is smallest.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.features import features, resolve
from dexpie_ros.critic.image_features import ImageFeatures
from dexpie_ros.critic.measure import episode_returns, measure
from dexpie_ros.critic.network import ValueNetwork
from dexpie_ros.critic.returns import ReturnConfig, Stream, lambda_returns, stream
from dexpie_ros.critic.settings import CriticConfig
from dexpie_ros.critic.targets import cross_entropy, soft_targets
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import verdict
from dexpie_ros.episodes.reader import require_alignment

Progress = Callable[[int, int, str], None]
"""Called with (done, total, message)."""

State = dict[str, torch.Tensor]


def usable(episodes: Sequence[Episode], returns: ReturnConfig) -> list[Episode]:
    """Episodes that are not excluded from the critic (for instance with a cause that cannot be
    seen in the observation), were not aborted and are whole: of a recording that was cut off nobody
    knows how far the end was. With ``returns.failures: leave_out`` those that succeeded.

    Raises:
        CriticError: none is left, an id occurs twice, or an outcome is missing.
    """
    kept = [e for e in episodes if counts(e, returns)]
    if not kept:
        cut = sum(e.partial for e in episodes)
        failed = returns.failures == "leave_out"
        raise CriticError(
            f"none of {len(episodes)} episodes may be used for the critic ({cut} were cut off; the "
            f"others are excluded by use_for_critic, {'failed, ' * failed}or aborted); record some, or "
            f"include excluded ones{', or set returns.failures=learn' * failed}"
        )
    seen: set[str] = set()
    for episode in kept:
        if episode.id in seen:
            raise CriticError(f"{episode.path}: a second episode with the id {episode.id}")
        seen.add(episode.id)
        if episode.outcome not in ("success", "failure"):
            raise CriticError(
                f"{episode.path}: outcome {episode.outcome!r}; annotate it as success or failure "
                "(`dexpie episodes annotate`) or exclude it from the critic"
            )
    return kept


def counts(episode: Episode, returns: ReturnConfig) -> bool:
    """Whether a critic may learn from an episode, and the thresholds of labels count it."""
    if returns.failures == "leave_out" and episode.outcome == "failure":
        return False
    return episode.info.use_for_critic and episode.outcome != "aborted" and not episode.partial


def split(episodes: Sequence[Episode], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each episode (n,). A failed episode and its correction (``pair_id``) share a fold:
    they start alike, and one would give the other's outcome away. Kinds and outcomes are spread
    evenly.

    Raises:
        CriticError: fewer independent episodes than two.
    """
    groups: dict[str, list[int]] = {}
    for index, episode in enumerate(episodes):
        key = f"pair:{episode.info.pair_id}" if episode.info.pair_id else f"episode:{index}"
        groups.setdefault(key, []).append(index)
    if len(groups) < 2:
        raise CriticError(
            f"{len(episodes)} episodes form {len(groups)} independent group: nothing can be held "
            "out. Record more, or set crossfit=0 and validation=0"
        )
    members = list(groups.values())
    order = [members[i] for i in np.random.default_rng(seed).permutation(len(members))]
    order.sort(key=lambda m: (episodes[m[0]].info.kind, episodes[m[0]].success))
    fold = np.zeros(len(episodes), np.int64)
    for position, group in enumerate(order):
        fold[group] = position % min(folds, len(members))
    return fold


@dataclass(eq=False)
class _Run:
    """One network with its own data order, noise and optimiser."""

    network: ValueNetwork
    features: torch.Tensor
    """(N, D), episodes one after the other."""
    returns: torch.Tensor
    """(N,) Monte-Carlo."""
    streams: Sequence[Stream]
    settings: CriticConfig
    seed: int

    def __post_init__(self) -> None:
        self.network.fit_normaliser(self.features)
        self.done = 0
        self.generator = torch.Generator().manual_seed(self.seed)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            self.settings.learning_rate,
            betas=(0.95, 0.999),
            weight_decay=self.settings.weight_decay,
        )
        batches = math.ceil(len(self.features) / self.settings.batch_size)
        self.passes = math.ceil(self.settings.min_batches / batches)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimiser, self.settings.epochs * self.passes * batches
        )

    def epoch(self) -> None:
        settings, network = self.settings, self.network
        wanted = self._targets()
        network.train()
        orders = [
            torch.randperm(len(self.features), generator=self.generator) for _ in range(self.passes)
        ]
        # Noise and dropout draw from torch's global generator; forking it keeps runs independent
        # of each other and of the caller.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self.generator)))
            for batch in (part for o in orders for part in o.split(settings.batch_size)):
                target = soft_targets(wanted[batch], network.centres, settings.sigma)
                loss = cross_entropy(network(self.features[batch]), target)
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                self.schedule.step()
        self.done += 1

    def _targets(self) -> torch.Tensor:
        """What this epoch learns (N,)."""
        settings = self.settings
        if settings.target_lambda == 1.0 or self.done < settings.warmup_epochs:
            return self.returns
        values = self.network.value(self.features).numpy()
        lengths = np.cumsum([len(s) for s in self.streams])[:-1]
        parts = [
            lambda_returns(v, s, settings.returns, settings.target_lambda)
            for v, s in zip(np.split(values, lengths), self.streams, strict=True)
        ]
        return torch.from_numpy(np.concatenate(parts)).float()


@dataclass(eq=False)
class _Data:
    features: list[torch.Tensor]
    returns: list[torch.Tensor]
    streams: list[Stream]

    def run(self, chosen: NDArray[np.bool_], settings: CriticConfig, seed: int) -> _Run:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ValueNetwork(self.features[0].shape[1], settings)
        index = np.flatnonzero(chosen)
        return _Run(
            network,
            torch.cat([self.features[i] for i in index]),
            torch.cat([self.returns[i] for i in index]),
            [self.streams[i] for i in index],
            settings,
            seed,
        )

    def squared_error(self, network: ValueNetwork, chosen: NDArray[np.bool_]) -> tuple[float, int]:
        index = np.flatnonzero(chosen)
        error = network.value(torch.cat([self.features[i] for i in index])) - torch.cat(
            [self.returns[i] for i in index]
        )
        return float((error**2).sum()), len(error)


def train_critic(
    settings: CriticConfig,
    episodes: Sequence[Episode],
    out_dir: str | Path | None = None,
    progress: Progress | None = None,
    preset: str = "",
) -> Critic:
    """Train, measure and (with ``out_dir``) save a critic.

    ``preset`` is the name that ``settings`` began with, kept for its labels. Episodes with ``use_for_critic: false`` are left out.
    Deterministic for a seed on one machine.

    Raises:
        CriticError: nothing to train on or to hold out, unannotated outcomes, mixed tasks.
        EpisodeError: an episode that was not aligned with ``settings.align``.
    """
    kept = usable(episodes, settings.returns)
    require_alignment(kept, settings.align)
    names = resolve(settings.features, kept)
    settings = dataclasses.replace(
        settings, features=dataclasses.replace(settings.features, object_names=names)
    )
    encode = _encoder(settings)
    data = _Data(
        [torch.from_numpy(features(e, settings.features, encode)) for e in kept],
        [torch.from_numpy(episode_returns(e, settings.returns)).float() for e in kept],
        [stream(len(e), e.success, e.human, settings.returns) for e in kept],
    )
    fold = _folds(settings, kept)
    report = progress or (lambda done, total, message: None)
    held_out, epoch, curve = _train_folds(settings, data, fold, report)
    if settings.crossfit:
        critic = Critic(
            settings,
            held_out,
            {e.id: int(f) for e, f in zip(kept, fold, strict=True)},
            inputs=[e.id for e in kept],
            encode=encode,
            preset=preset,
            pairs={
                e.info.pair_id: int(f) for e, f in zip(kept, fold, strict=True) if e.info.pair_id
            },
        )
    else:
        everything = np.ones(len(kept), bool)
        whole = data.run(everything, settings, settings.seed + 1000)
        for done in range(epoch):
            whole.epoch()
            report(settings.epochs + done + 1, settings.epochs + epoch, "critic, all episodes")
        critic = Critic(settings, [whole.network], {}, None, [e.id for e in kept], encode, preset)
    unseen = {
        i: held_out[fold[i]].value(data.features[i]).numpy().astype(np.float64)
        for i in range(len(kept))
        if fold[i] >= 0
    }
    critic.verdicts = {e.id: verdict(e) for e in kept}
    critic.metrics = {
        "episodes": len(kept),
        "networks": len(critic.networks),
        "crossfit": settings.crossfit,
        "epoch": epoch,
        "held_out_rmse_per_epoch": [round(c, 6) for c in curve],
        **measure(critic, kept, unseen),
    }
    if out_dir is not None:
        critic.save(out_dir)
    return critic


def _encoder(settings: CriticConfig) -> ImageFeatures | None:
    if not settings.features.images:
        return None
    # An encoder that was asked to start from nothing shall start from the same nothing.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return ImageFeatures.build(settings.features)


def _folds(settings: CriticConfig, episodes: Sequence[Episode]) -> NDArray[np.int64]:
    """Fold whose network is trained without the episode; -1: every network may see it."""
    if settings.crossfit == 1:
        raise CriticError("crossfit=1 leaves nothing to train on; use 0 (off) or at least 2")
    if settings.crossfit:
        return split(episodes, settings.crossfit, settings.seed)
    if settings.validation == 0.0:
        return np.full(len(episodes), -1)
    parts = max(2, round(1.0 / settings.validation))
    return np.where(split(episodes, parts, settings.seed) == 0, 0, -1)


def _train_folds(
    settings: CriticConfig, data: _Data, fold: NDArray[np.int64], report: Progress
) -> tuple[list[ValueNetwork], int, list[float]]:
    """Networks of the best epoch, that epoch (1-based), held-out RMSE per epoch."""
    count = int(fold.max()) + 1
    if count == 0:
        return [], settings.epochs, []
    runs = [data.run(fold != k, settings, settings.seed + k) for k in range(count)]
    best: list[State] = []
    best_epoch, curve = 0, []
    first = 1
    if settings.target_lambda < 1.0 and settings.early_stopping:
        first = min(settings.epochs, max(settings.warmup_epochs, settings.epochs // 2) + 1)
    for epoch in range(1, settings.epochs + 1):
        total, steps = 0.0, 0
        for k, run in enumerate(runs):
            run.epoch()
            error, n = data.squared_error(run.network, fold == k)
            total, steps = total + error, steps + n
        curve.append(math.sqrt(total / steps))
        report(epoch, settings.epochs, f"critic, held-out error {curve[-1]:.3f}")
        if epoch < first:
            continue
        if not settings.early_stopping or curve[-1] <= min(curve[first - 1 :]):
            best_epoch = epoch
            best = [copy.deepcopy(run.network.state_dict()) for run in runs]
        elif epoch - best_epoch >= settings.patience:
            break
    for run, state in zip(runs, best, strict=True):
        run.network.load_state_dict(state)
    return [run.network for run in runs], best_epoch, curve
