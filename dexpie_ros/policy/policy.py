"""A policy on disk and in memory: one directory, loaded whole or refused with a sentence.

::

    DIR/model.safetensors   weights (of the moving average)
    DIR/config.yaml         format, action convention, settings, hashes of the other files
    DIR/normalizer.json     how actions and observations are scaled
    DIR/card.md             what it was trained on, preset, metrics: for people
    DIR/run.yaml            of a trained one: settings of the whole run, hashes of its data
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dexpie_ros import config as cfg
from dexpie_ros.control.types import Command, Observation
from dexpie_ros.geometry import Array
from dexpie_ros.policy import actions, files, images
from dexpie_ros.policy.actor import Actor
from dexpie_ros.policy.encoders import build_encoder
from dexpie_ros.policy.normalizer import Normalizer, NormalizerError
from dexpie_ros.policy.settings import InferenceSettings, PolicyConfig

FORMAT = "dexpie-policy/1"
_MODEL, _CONFIG, _NORMALIZER, _CARD, _RUN = (
    "model.safetensors",
    "config.yaml",
    "normalizer.json",
    "card.md",
    "run.yaml",
)


class PolicyError(ValueError):
    """A policy that cannot be loaded or does not fit; says what to do."""


class Policy:
    """Observation and prefix in, a chunk of absolute commands out. Deterministic for given noise."""

    def __init__(
        self,
        config: PolicyConfig,
        actor: Actor,
        normalizer: Normalizer,
        device: str = "cpu",
        policy_id: str = "",
        backend: str = "",
    ) -> None:
        """``backend`` of `torch.compile` for the U-Net (`inductor` on a GPU), empty for none."""
        self.config, self.normalizer, self.policy_id = config, normalizer, policy_id
        self.device = torch.device(device)
        self.actor = actor.to(self.device).eval().requires_grad_(False)
        self._ready, self._backend = False, backend

    def warm_up(self) -> None:
        """Do once what only the first chunk costs: weights laid out, libraries loaded."""
        if self._ready:
            return
        self._ready = True
        self.actor.prepare(self._backend)
        spec, size = self.config.observation, self.config.encoder.image_size
        pictures = np.zeros((len(spec.images), 3, size, size), np.uint8) if spec.images else None
        prefix = (np.tile(np.eye(4), (1, 1, 1)), np.zeros((1, 6)))
        self.sample(np.zeros(spec.size), np.eye(4), pictures, prefix)

    @property
    def horizon(self) -> int:
        return self.config.action.horizon

    @property
    def encoder_origin(self) -> str:
        """Where the image encoder's first weights came from; empty for a state policy."""
        return self.actor.encoder.origin if self.actor.encoder is not None else ""

    def observe(
        self, observation: Observation
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """Vector (D,) and images (V, 3, S, S) of a live observation.

        Raises ObservationError where it lacks what the policy was trained on.
        """
        spec = self.config.observation
        vector = spec.from_live(observation)
        if not spec.images:
            return vector, None
        size = self.config.encoder.image_size
        return vector, images.stack(observation.images, spec.images, size)

    def sample(
        self,
        vector: ArrayLike,
        t_obs: ArrayLike,
        pictures: NDArray[np.uint8] | None = None,
        prefix: tuple[ArrayLike, ArrayLike] | Sequence[Command] | None = None,
        seed: int | Sequence[int] = 0,
        settings: InferenceSettings | None = None,
    ) -> tuple[Array, Array]:
        """A chunk: absolute poses (H, 4, 4) in base and openings (H, 6).

        ``vector`` (D,) and ``pictures`` as from :meth:`observe`; ``t_obs`` (4, 4) is the TCP
        measured at that observation. ``prefix`` are the d commands that will be executed from then
        on, absolute (poses (d, 4, 4), openings (d, 6), or commands); no more than the n of training
        are used, and they come back exactly. The noise depends on ``seed`` alone; with
        ``noise: 0`` in the settings there is none.
        """
        self.warm_up()
        tcp_prefix, hand_prefix = prefix_arrays(prefix, self.config.prefix.max_delay)
        delay = len(tcp_prefix)
        shape = (self.horizon, actions.ACTION_DIM)
        settings = settings or self.config.inference
        random = np.random.default_rng(seed)
        noise = settings.noise * random.standard_normal(shape, dtype=np.float32)
        fresh = None
        if self.config.diffusion.sampler == "ddpm":
            more = random.standard_normal((settings.steps, 1, *shape), dtype=np.float32)
            fresh = torch.from_numpy(settings.noise * more).to(self.device)
        known, mask = np.zeros(shape, np.float32), np.zeros(self.horizon, np.float32)
        if delay:
            encoded = actions.encode(t_obs, tcp_prefix, hand_prefix)
            known[:delay], mask[:delay] = self.normalizer.actions(encoded), 1.0
        with torch.inference_mode():
            features = self.actor.features(
                self._tensor(self.normalizer.observation(vector)), self._images(pictures)
            )
            chunk = self.actor.sample(
                features,
                self._tensor(noise),
                self._tensor(known),
                self._tensor(mask),
                settings,
                fresh,
            )
        values = self.normalizer.invert_actions(chunk[0].float().cpu().numpy())
        tcp, hand = actions.decode(t_obs, values)
        tcp[:delay], hand[:delay] = tcp_prefix, hand_prefix
        return tcp, hand

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))[None].to(self.device)

    def _images(self, pictures: NDArray[np.uint8] | None) -> torch.Tensor | None:
        if not self.config.observation.images:
            return None
        if pictures is None:
            raise PolicyError(
                f"policy {self.policy_id}: trained on {self.config.observation.describe()}, but no "
                "images were given; publish the cameras or load a state policy"
            )
        # Not through _tensor: the memory stays channels-last.
        return torch.from_numpy(pictures)[None].to(self.device)

    def save(self, directory: str | Path, card: str = "", run: str = "") -> Path:
        """Write the whole directory or nothing; an older policy there is replaced.

        ``run``: YAML of the run that made it, kept beside the weights.
        """
        weights = {k: v.contiguous().cpu() for k, v in self.actor.state_dict().items()}
        model = save_tensors(weights, {"format": FORMAT})
        normalizer = files.json_bytes(self.normalizer.to_dict())
        hashes = {_MODEL: _sha256(model), _NORMALIZER: _sha256(normalizer)}
        policy = cfg.to_dict(self.config)
        settings = {
            "format": FORMAT,
            "action_convention": actions.ACTION_CONVENTION,
            "sha256": hashes,
            "provenance": cfg.provenance(),
            "encoder_origin": self.encoder_origin,
            "policy": policy,
        }
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        self.policy_id = _policy_id(hashes, policy)
        contents = {
            _MODEL: model,
            _NORMALIZER: normalizer,
            _CONFIG: text.encode(),
            _CARD: (card or default_card(self)).encode(),
            **({_RUN: run.encode()} if run else {}),
        }
        return files.replace_directory(Path(directory), contents)

    @staticmethod
    def load(
        directory: str | Path,
        device: str = "cpu",
        offered: Collection[str] = ("images", "objects"),
        backend: str = "",
    ) -> Policy:
        """Read a policy; PolicyError says in a sentence why it cannot be used.

        ``offered``: which of `images` and `objects` (poses that a simulator knows) the caller can
        give beside the robot's own state; ``backend`` as in the constructor.
        """
        folder = Path(directory)
        files.recover_directory(folder)
        if not (folder / _CONFIG).is_file():
            raise PolicyError(f"{folder}: no policy there ({_CONFIG} is missing); check the path")
        values = cfg.read_yaml(folder / _CONFIG)
        _require(values, "format", FORMAT, folder)
        _require(values, "action_convention", actions.ACTION_CONVENTION, folder)
        where = f"{folder / _CONFIG}: policy"
        config = cfg.from_dict(PolicyConfig, values.get("policy") or {}, where)
        spec = config.observation
        needed = {"images": bool(spec.images), "objects": spec.needs_objects}
        lacking = [what for what, needs in needed.items() if needs and what not in offered]
        if lacking:
            raise PolicyError(
                f"{folder}: trained on {spec.describe()}, but no {' and no '.join(lacking)} are at "
                "hand here; choose a policy that does without"
            )
        hashes = values.get("sha256") or {}
        contents = {name: _read(folder / name, hashes.get(name)) for name in (_MODEL, _NORMALIZER)}
        try:
            normalizer = Normalizer.load(folder / _NORMALIZER)
            weights = load_tensors(contents[_MODEL])
        except (NormalizerError, SafetensorError) as error:
            raise PolicyError(f"{folder}: {error}") from None
        encoder = build_encoder(config, load_weights=False)
        if encoder is not None:
            encoder.origin = str(values.get("encoder_origin", ""))
        actor = Actor(config, encoder)
        _load_weights(actor, weights, folder / _MODEL)
        name = _policy_id(hashes, values["policy"])
        return Policy(config, actor, normalizer, device, name, backend)


def chosen_device(asked: str) -> str:
    """What torch calls the device; `auto` is cuda where torch sees a GPU, else cpu.

    PolicyError where a GPU is asked for and torch sees none.
    """
    seen = torch.cuda.is_available()
    if asked == "auto":
        return "cuda" if seen else "cpu"
    if asked.startswith("cuda") and not seen:
        raise PolicyError(
            f"device {asked}: torch sees no GPU here (`dexpie doctor` says what it has); take "
            "device:=auto or device:=cpu"
        )
    return asked


def prefix_arrays(
    prefix: tuple[ArrayLike, ArrayLike] | Sequence[Command] | None, limit: int
) -> tuple[Array, Array]:
    """Prefix in any of its forms -> poses (d, 4, 4) and openings (d, 6) with d <= ``limit``."""
    if prefix is None or len(prefix) == 0:
        return np.zeros((0, 4, 4)), np.zeros((0, 6))
    if isinstance(prefix[0], Command):
        commands: list[Command] = list(prefix[:limit])  # type: ignore[arg-type]
        tcp = np.array([c.tcp.matrix() for c in commands]).reshape(-1, 4, 4)
        return tcp, np.array([c.hand for c in commands], np.float64).reshape(-1, 6)
    poses, hands = (np.asarray(part, np.float64) for part in prefix)  # type: ignore[arg-type]
    if poses.shape[1:] != (4, 4) or hands.shape != (len(poses), 6):
        raise ValueError(f"prefix of shapes {poses.shape}, {hands.shape}; expected (d,4,4), (d,6)")
    return poses[:limit], hands[:limit]


def default_card(policy: Policy, lines: Sequence[str] = ()) -> str:
    """Markdown for people: what the policy is; ``lines`` tell what it was trained on."""
    config = policy.config
    count = sum(p.numel() for p in policy.actor.parameters())
    facts = [
        f"preset `{config.preset}`; {config.denoiser.kind}, {count / 1e6:.2f} M parameters",
        f"observation: {config.observation.describe()}",
        f"actions: {actions.ACTION_CONVENTION}, H = {config.action.horizon}, "
        f"position scale {policy.normalizer.position_scale:.4f} m",
        f"prefix up to {config.prefix.max_delay} steps, "
        + (
            f"kept with {config.prefix.keep_prob}"
            if config.prefix.kind == "conditioned"
            else f"chunks bent onto it over {config.prefix.bend}"
        ),
        *([f"image encoder: {policy.encoder_origin}"] if policy.encoder_origin else []),
        f"optimality: {config.optimality.kind}; beta {config.inference.beta}, "
        f"{config.inference.steps} steps, noise {config.inference.noise:g}",
        *lines,
    ]
    return "# Policy\n\n" + "".join(f"* {fact}\n" for fact in facts)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def saved_id(directory: str | Path) -> str:
    """`Policy.policy_id` of a saved policy, without its weights; empty where there is none."""
    path = Path(directory) / _CONFIG
    if not path.is_file():
        return ""
    values = cfg.read_yaml(path)
    return _policy_id(values.get("sha256") or {}, values.get("policy") or {})


def _policy_id(hashes: dict[str, str], settings: dict[str, Any]) -> str:
    return _sha256(files.json_bytes({"files": hashes, "policy": settings}))[:12]


def _require(values: dict[str, Any], key: str, wanted: str, folder: Path) -> None:
    if values.get(key) != wanted:
        raise PolicyError(
            f"{folder / _CONFIG}: {key} is {values.get(key)!r}, this version reads {wanted!r}; "
            "train it again or use the version that wrote it"
        )


def _read(path: Path, wanted: str | None) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error}; copy the whole folder") from None
    if _sha256(data) != wanted:
        raise PolicyError(
            f"{path}: its SHA-256 is not that in {_CONFIG}; copy the whole folder anew"
        )
    return data


def _load_weights(actor: Actor, weights: dict[str, torch.Tensor], path: Path) -> None:
    wanted = {name: tuple(value.shape) for name, value in actor.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != found:
        wrong = sorted(k for k in wanted.keys() | found if wanted.get(k) != found.get(k))
        raise PolicyError(
            f"{path}: {len(wrong)} tensors do not fit the settings, first {wrong[0]}; "
            f"{_CONFIG} and the weights are not of one policy"
        )
    actor.load_state_dict(weights)
