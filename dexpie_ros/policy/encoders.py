"""Image encoders: R3M ResNets or a small CNN, shared or one per view, trainable or frozen."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from dexpie_ros.policy import r3m
from dexpie_ros.policy.augmentation import center_crop, color_jitter, random_crop
from dexpie_ros.policy.resnet import FrozenBatchNorm, ResNet, SmallCNN, group_norm
from dexpie_ros.policy.settings import EncoderConfig, PolicyConfig

RANDOM = "random"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_log = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Images (B, V, 3, S, S), uint8 or 0 .. 1 -> features (B, V * F), views in order."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: EncoderConfig, views: int) -> None:
        super().__init__()
        self.settings, self.views = settings, views
        self.nets = nn.ModuleList(_trunk(settings) for _ in range(1 if settings.shared else views))
        self.view_size = int(self.nets[0].size)  # type: ignore[arg-type]
        self.size = views * self.view_size
        self.origin = ""
        """Where the weights came from, for the card."""
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        if not settings.trainable:
            self.requires_grad_(False)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``generator`` given: augment as the settings say; otherwise the centre crop.

        Raises ValueError where floats are not in 0 .. 1: 0 .. 255 would be 255 times too bright.
        """
        if images.ndim != 5 or images.shape[1] != self.views:
            raise ValueError(
                f"images of shape {tuple(images.shape)}; expected (B, {self.views}, 3, S, S)"
            )
        with torch.set_grad_enabled(self.settings.trainable and torch.is_grad_enabled()):
            flat = self._prepare(images.flatten(0, 1), generator)
            if self.settings.shared:
                out: Tensor = self.nets[0](flat)
                return out.view(len(images), -1)
            views = flat.view(len(images), self.views, *flat.shape[1:])
            return torch.cat([net(views[:, i]) for i, net in enumerate(self.nets)], dim=-1)

    def _prepare(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype).div_(255.0)
        else:
            low, high = images.aminmax()
            if not (low >= 0.0 and high <= 1.0):  # NaN is in no range
                raise ValueError(
                    f"images from {low:.3g} to {high:.3g}; give uint8 or floats in 0 .. 1"
                )
        settings = self.settings
        if generator is None:
            images = center_crop(images, settings.random_crop)
        else:
            images = random_crop(images, settings.random_crop, generator)
            images = color_jitter(images, settings.color_jitter, generator)
        return (images - self.mean) / self.std


def build_encoder(config: PolicyConfig, load_weights: bool = True) -> Encoder | None:
    """The encoder that the settings mean, or None for a state policy.

    ``load_weights`` False: the caller brings them. Raises WeightsError where ``encoder.weights``
    is empty or holds nothing usable: starting from nothing must be asked for by name (`random`).
    """
    spec, settings = config.observation, config.encoder
    if not spec.images:
        return None
    encoder = Encoder(settings, len(spec.images))
    if not load_weights:
        return encoder
    if settings.weights == RANDOM:
        encoder.origin = f"{settings.arch}, random initialisation, as asked for"
        _log.warning("image encoder: %s", encoder.origin)
        if settings.arch != "small_cnn" and settings.normalization == "frozen_batchnorm":
            _log.warning(
                "image encoder: frozen_batchnorm without weights normalises nothing (mean 0, "
                "variance 1); set encoder.normalization=groupnorm and encoder.trainable=true"
            )
        return encoder
    if not settings.weights:
        raise r3m.WeightsError(
            "encoder.weights: empty; give it R3M's model.pt (or a .safetensors made of it), or "
            "`random` to start from nothing"
        )
    weights = r3m.read(settings.weights)
    for net in encoder.nets:
        missing = r3m.load_into(net, weights)
        if missing:
            _log.warning("image encoder: GroupNorm takes BatchNorm's weight and bias as a start")
    encoder.origin = f"{settings.arch} from {weights.source}, SHA-256 {weights.sha256}"
    _log.info("image encoder: %s", encoder.origin)
    return encoder


def _trunk(settings: EncoderConfig) -> ResNet | SmallCNN:
    if settings.arch == "small_cnn":
        return SmallCNN()
    norm = FrozenBatchNorm if settings.normalization == "frozen_batchnorm" else group_norm
    return ResNet(settings.arch, norm)
