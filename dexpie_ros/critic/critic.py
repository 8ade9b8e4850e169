"""A trained critic: which network may judge which episode, and how it is kept on disk.

A directory holds ``critic.safetensors`` (weights), ``config.yaml`` (the resolved config),
``critic.json`` (folds, inputs, provenance, content hash) and ``metrics.json`` (held-out quality).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dexpie_ros import config as configs
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.features import features
from dexpie_ros.critic.image_features import ImageFeatures
from dexpie_ros.critic.network import ValueNetwork
from dexpie_ros.critic.settings import CriticConfig
from dexpie_ros.critic.targets import expectation, quantile
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import verdict
from dexpie_ros.episodes.reader import require_alignment

FORMAT = 1
SPREAD = (0.1, 0.9)
"""Quantiles of the distribution that labels keep beside its mean."""


class Judgement(NamedTuple):
    """What a critic thinks of an episode (T,), in its units."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class Critic:
    """Values of episodes, each from networks that did not see it where that is possible.

    ``folds`` names, for every training episode, the network that was trained without it and without
    the other episodes of its pair. An episode of which no network saw anything is judged by the mean
    of all.
    """

    def __init__(
        self,
        settings: CriticConfig,
        networks: Sequence[ValueNetwork],
        folds: dict[str, int],
        metrics: dict[str, Any] | None = None,
        inputs: Sequence[str] = (),
        encode: ImageFeatures | None = None,
        preset: str = "",
        pairs: Mapping[str, int] | None = None,
        verdicts: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.networks = tuple(networks)
        self.folds = dict(folds)
        self.metrics = metrics or {}
        self.inputs = tuple(inputs)
        """Ids of all training episodes."""
        self.encode = encode
        """The image encoder, where ``settings.features.images`` asks for one."""
        self.preset = preset
        """Name of the preset that the config began with: its labels are made by the same, unless
        something else is asked for. Empty where nobody said."""
        self.pairs = dict(pairs or {})
        """Fold by ``pair_id``: a failed episode and its correction start alike."""
        self.verdicts = dict(verdicts or {})
        """What people said of each training episode (`episodes.labels.verdict`), by id."""
        for network in self.networks:
            network.eval()

    @cached_property
    def hash(self) -> str:
        """Content hash of weights, folds and config: the same critic has the same hash."""
        digest = hashlib.sha256(self._weights())
        settings = configs.to_dict(self.settings)
        if self.settings.align == AlignConfig():
            del settings["align"]  # critics of before there was a choice keep their hash
        if not self.settings.features.contact:
            del settings["features"]["contact"]
        if self.settings.returns.failures == "learn":
            del settings["returns"]["failures"]
        described: list[Any] = [settings, sorted(self.folds.items())]
        if self.encode is not None:
            described.append([(self.encode.identity, 0)])
        digest.update(json.dumps(described, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def held_out(self, episode: Episode) -> bool:
        """Whether the network(s) that judge this episode never saw it."""
        return episode.id in self.folds or episode.id not in self.inputs

    def outdated(self, episodes: Sequence[Episode]) -> list[Episode]:
        """Those that were judged otherwise, or driven by others, when the critic learned from them.

        Critics of earlier versions do not know: none.
        """
        return [e for e in episodes if e.id in self.verdicts and self.verdicts[e.id] != verdict(e)]

    def _judges(self, episode: Episode) -> tuple[ValueNetwork, ...]:
        """The networks that saw neither this episode nor its pair, as far as there are such."""
        fold = self.folds.get(episode.id, self.pairs.get(episode.info.pair_id))
        return self.networks if fold is None else (self.networks[fold],)

    def values(self, episode: Episode) -> NDArray[np.float64]:
        """V(o_t) for every control step (T,), in the critic's units, [-1, 0]."""
        return self._judge(episode, self._judges(episode))[0]

    def judge(self, episode: Episode) -> Judgement:
        """:meth:`values` with the spread of the distribution that they are the mean of.

        Where several networks judge, of their mixture: it is wide too where they disagree.
        """
        chosen = self._judges(episode)
        values, masses = self._judge(episode, chosen)
        centres = chosen[0].centres.to(masses.dtype)
        low, high = (quantile(masses, centres, share) for share in SPREAD)
        return Judgement(values, low.cpu().numpy(), high.cpu().numpy())

    def values_in_sample(self, episode: Episode) -> NDArray[np.float64]:
        """V(o_t) (T,) from networks that did see this episode: for comparison only."""
        fold = self.folds.get(episode.id)
        others = tuple(n for k, n in enumerate(self.networks) if k != fold)
        return self._judge(episode, others or self.networks)[0]

    def _judge(
        self, episode: Episode, networks: Sequence[ValueNetwork]
    ) -> tuple[NDArray[np.float64], torch.Tensor]:
        """Mean value (T,), and the mean distribution over the bins (T, K) in float64."""
        require_alignment([episode], self.settings.align)
        rows = torch.from_numpy(features(episode, self.settings.features, self.encode))
        device = networks[0].centres.device
        if rows.shape[1] != networks[0].mean.shape[0]:
            raise CriticError(
                f"{episode.path}: {rows.shape[1]} features, the critic was trained on "
                f"{networks[0].mean.shape[0]}; is it another task's critic?"
            )
        with torch.no_grad():
            logits = [network(rows.to(device)) for network in networks]
            pairs = zip(logits, networks, strict=True)
            values = torch.stack([expectation(x, network.centres) for x, network in pairs])
            masses = torch.stack([x.double().softmax(-1) for x in logits])
        return values.mean(0).cpu().numpy().astype(np.float64), masses.mean(0)

    def save(self, directory: str | Path) -> Path:
        """Write the critic; every file whole or not at all."""
        folder = Path(directory)
        configs.write_atomic(folder / "critic.safetensors", self._weights())
        configs.save_yaml(self.settings, folder / "config.yaml")
        if self.encode is not None:
            self.encode.save(folder)
        configs.write_json(folder / "metrics.json", self.metrics)
        configs.write_json(
            folder / "critic.json",
            {
                "format": FORMAT,
                "hash": self.hash,
                "preset": self.preset,
                "networks": len(self.networks),
                "folds": self.folds,
                "inputs": list(self.inputs),
                "pairs": self.pairs,
                "verdicts": self.verdicts,
                "provenance": configs.provenance(),
            },
        )
        return folder

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu") -> Critic:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: missing or damaged files, or weights that do not match their hash.
        """
        folder = Path(directory)
        about = _read_json(folder / "critic.json")
        if about.get("format") != FORMAT:
            raise configs.ConfigError(
                f"{folder / 'critic.json'}: format {about.get('format')!r}, this version reads "
                f"{FORMAT}; train the critic again"
            )
        settings = configs.load(CriticConfig, folder / "config.yaml")
        weights = folder / "critic.safetensors"
        try:
            tensors = load_tensors(weights.read_bytes())
            networks = [_network(tensors, k, settings) for k in range(int(about["networks"]))]
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise configs.ConfigError(
                f"{weights}: not the weights of this critic ({error}); copy the whole directory "
                "again or train anew"
            ) from None
        cameras = settings.features.images
        encode = ImageFeatures.load(settings.features, folder, device) if cameras else None
        metrics = _read_json(folder / "metrics.json")
        critic = cls(
            settings, networks, about["folds"], metrics, about["inputs"], encode,
            str(about.get("preset", "")), about.get("pairs"), about.get("verdicts"),
        )  # fmt: skip
        if critic.hash != about["hash"]:
            raise configs.ConfigError(
                f"{folder}: contents do not match the hash {about['hash']} in critic.json; files "
                "of two critics were mixed, or one was edited"
            )
        for network in networks:
            network.to(device)
        return critic

    def _weights(self) -> bytes:
        tensors = {
            f"{k}.{name}": tensor.detach().cpu().contiguous()
            for k, network in enumerate(self.networks)
            for name, tensor in network.state_dict().items()
        }
        return save_tensors(tensors)


def _network(tensors: dict[str, torch.Tensor], k: int, settings: CriticConfig) -> ValueNetwork:
    prefix = f"{k}."
    state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    network = ValueNetwork(state["mean"].shape[0], settings)
    network.load_state_dict(state)
    return network


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise configs.ConfigError(f"{path}: no such file; is this a critic's directory?") from None
    except (OSError, ValueError) as error:
        raise configs.ConfigError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise configs.ConfigError(f"{path}: expected a JSON object")
    return content
