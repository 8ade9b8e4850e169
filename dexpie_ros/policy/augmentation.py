"""Random crop and colour jitter of image batches, reproducible from a generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def center_crop(images: Tensor, removed: float) -> Tensor:
    """(B, 3, S, S) -> the same size, without the outer ``removed`` share of each side."""
    if not removed:
        return images
    batch = len(images)
    zero = torch.zeros(batch, device=images.device)
    return _crop(images, 1.0 - removed, zero, zero)


def random_crop(images: Tensor, removed: float, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S): each image loses ``removed`` of each side, at a place of its own."""
    if not removed:
        return images
    place = torch.rand(2, len(images), generator=generator, device=images.device)
    place = (2.0 * place - 1.0) * removed
    return _crop(images, 1.0 - removed, place[0], place[1])


def _crop(images: Tensor, keep: float, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear; the window's centre lies at (x, y) in -1 .. 1 of the image."""
    zero = torch.zeros_like(x)
    theta = torch.stack(
        [torch.stack([zero + keep, zero, x], 1), torch.stack([zero, zero + keep, y], 1)], 1
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False).to(images.dtype)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def color_jitter(
    images: Tensor, strength: tuple[float, float, float, float], generator: torch.Generator
) -> Tensor:
    """Brightness, contrast, saturation and hue of (B, 3, S, S) in 0 .. 1, each image its own.

    The first three are factors from 1 +- strength, hue is a turn of the colour circle (in turns,
    around the luma axis of YIQ). All of it is one affine map of colours for each image.
    """
    if not any(strength):
        return images
    brightness, contrast, saturation, hue = strength
    draws = 2.0 * torch.rand(4, len(images), generator=generator, device=images.device) - 1.0
    bright = (1.0 + brightness * draws[0])[:, None, None]
    gain = (1.0 + contrast * draws[1])[:, None, None]
    color = 1.0 + saturation * draws[2]
    angle = 2.0 * math.pi * hue * draws[3]
    to_yiq = torch.tensor(_TO_YIQ, device=images.device)
    turn = torch.zeros(len(images), 3, 3, device=images.device)
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = color * angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -color * angle.sin(), color * angle.sin()
    matrix = bright * gain * (torch.linalg.inv(to_yiq) @ turn @ to_yiq)
    luma = torch.tensor(_LUMA, device=images.device)
    gray = torch.einsum("bchw,c->b", images, luma) / images[0, 0].numel()
    offset = ((1.0 - gain) * bright)[:, :, 0] * gray[:, None]
    flat = torch.baddbmm(offset[:, :, None], matrix, images.flatten(2))
    return flat.view_as(images).clamp(0.0, 1.0)
