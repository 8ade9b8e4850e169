"""ResNet-18/34/50 trunks under torchvision's key names, and a small CNN for one CPU core.

BatchNorm is never updated: its statistics are those that came with the weights, in training as in
use. An averaged model with moving statistics of its own does not work (diffusion_policy's note on
EMA and BatchNorm); training from nothing should use GroupNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[[int], nn.Module]
_EPSILON = 1e-5
_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


class FrozenBatchNorm(nn.Module):
    """BatchNorm2d with statistics that never change; weight and bias are ordinary parameters."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, _EPSILON
        )


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels (diffusion_policy)."""
    return nn.GroupNorm(channels // 16, channels)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), norm(width)
        self.conv2, self.bn2 = _conv(width, width, 3), norm(width)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 1), norm(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), norm(width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), norm(4 * width)
        self.downsample = _shortcut(inputs, 4 * width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), norm(outputs))


class ResNet(nn.Module):
    """Images (B, 3, S, S), normalised -> pooled features (B, 512 or 2048)."""

    def __init__(self, arch: Literal["resnet18", "resnet34", "resnet50"], norm: Norm) -> None:
        super().__init__()
        block: type[_Basic] | type[_Bottleneck] = _Bottleneck if arch == "resnet50" else _Basic
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), norm(64)
        inputs = 64
        for level, count in enumerate(_BLOCKS[arch]):
            width, blocks = 64 * 2**level, []
            for index in range(count):
                stride = 2 if level and not index else 1
                blocks.append(block(inputs, width, stride, norm))
                inputs = width * block.expansion
            setattr(self, f"layer{level + 1}", nn.Sequential(*blocks))
        self.size = inputs

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for level in range(1, 5):
            x = getattr(self, f"layer{level}")(x)
        return x.mean(dim=(2, 3))


class SmallCNN(nn.Module):
    """Four convolutions and a spatial softmax: where things are, in 61 k parameters.

    Images (B, 3, S, S), normalised -> expected image coordinates of 64 channels (B, 128), -1 .. 1.
    """

    size = 128

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, kernel, stride in ((16, 5, 2), (32, 3, 2), (64, 3, 1), (64, 3, 1)):
            layers += [_conv(inputs, outputs, kernel, stride), nn.GroupNorm(8, outputs), nn.ReLU()]
            inputs = outputs
        last = layers[-2]
        assert isinstance(last, nn.GroupNorm)
        nn.init.constant_(last.weight, 3.0)  # at 1 the softmax would look everywhere at once
        self.layers = nn.Sequential(*layers[:-1])  # it wants signed activations

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layers(x)
        weight = maps.flatten(2).softmax(dim=-1).view_as(maps)
        rows = torch.linspace(-1, 1, maps.shape[2], device=maps.device, dtype=maps.dtype)
        columns = torch.linspace(-1, 1, maps.shape[3], device=maps.device, dtype=maps.dtype)
        y = (weight.sum(dim=3) * rows).sum(dim=2)
        return torch.cat([(weight.sum(dim=2) * columns).sum(dim=2), y], dim=-1)
