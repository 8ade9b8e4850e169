"""The U-Net and the ResNet as they run, not as they train: the same numbers in less time.

A chunk has 6 to 24 slots, so a convolution over it is a small matrix product whose cost is reading
its weights; the library's convolutions lay those out anew at every call. Here

* the memory is channels-last, (B, L, C), and every convolution is one product with weights laid
  out ahead;
* FiLM projections of all steps are computed before the first (`Actor.sample`);
* frozen BatchNorm is folded into the convolution before it.

Weights are copied: build these after the last change to the module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dexpie_ros.policy.encoders import Encoder
from dexpie_ros.policy.resnet import FrozenBatchNorm
from dexpie_ros.policy.unet import UNetDenoiser

Product = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, list[Tensor], list[Tensor]], Tensor]


def product(weight: Tensor, bias: Tensor | None, rows: int, pack: bool = True) -> Product:
    """``x @ weight.T + bias`` for x (rows, C); on a CPU with oneDNN the weights are packed once."""
    if pack and weight.device.type == "cpu" and weight.dtype == torch.float32:
        packed = _packed_product(weight, bias, rows)
        if packed is not None:
            return packed
    return lambda x: F.linear(x, weight, bias)


def _packed_product(weight: Tensor, bias: Tensor | None, rows: int) -> Product | None:
    """Inductor's own operators; None where this torch has none or they do something else."""
    reorder = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if reorder is None or linear is None or not torch.backends.mkldnn.is_available():
        return None
    probe = torch.ones(rows, weight.shape[1])
    try:
        packed = reorder(weight, rows)
        out = linear(probe, packed, bias, "none", [], "")
    except (RuntimeError, TypeError):
        return None
    expected = F.linear(probe, weight, bias)
    if not torch.allclose(out, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())):
        return None
    return lambda x: linear(x, packed, bias, "none", [], "")


class _Convolution:
    """Conv1d over (B, L, C) as one product."""

    def __init__(self, conv: nn.Conv1d, batch: int, length: int, pack: bool) -> None:
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.padding = int(conv.padding[0])
        self.outputs = conv.out_channels
        rows = batch * (length // self.stride)
        weight = conv.weight.detach().permute(0, 2, 1).reshape(self.outputs, -1).contiguous()
        bias = None if conv.bias is None else conv.bias.detach()
        self.product = product(weight, bias, rows, pack)

    def __call__(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        if self.kernel > 1:
            x = _windows(F.pad(x, (0, 0, self.padding, self.padding)), self.kernel, self.stride)
            length //= self.stride
        return self.product(x.reshape(batch * length, -1)).view(batch, length, self.outputs)


class _Doubling:
    """ConvTranspose1d(kernel 4, stride 2, padding 1) over (B, L, C) as one product.

    Output 2j sees inputs j and j - 1 through taps 1 and 3, output 2j + 1 inputs j and j + 1 through
    taps 2 and 0.
    """

    def __init__(self, conv: nn.ConvTranspose1d, batch: int, length: int, pack: bool) -> None:
        weight = conv.weight.detach()  # (inputs, outputs, 4)
        inputs, self.outputs, _ = weight.shape
        taps = torch.zeros(2, self.outputs, 3, inputs, device=weight.device, dtype=weight.dtype)
        for phase, at, tap in ((0, 0, 3), (0, 1, 1), (1, 1, 2), (1, 2, 0)):
            taps[phase, :, at] = weight[:, :, tap].T
        assert conv.bias is not None
        bias = conv.bias.detach().repeat(2)
        self.product = product(taps.reshape(2 * self.outputs, -1), bias, batch * length, pack)

    def __call__(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        columns = _windows(F.pad(x, (0, 0, 1, 1)), 3, 1).reshape(batch * length, -1)
        return self.product(columns).view(batch, 2 * length, self.outputs)


def _windows(x: Tensor, kernel: int, stride: int) -> Tensor:
    """(B, L, C), contiguous -> a view (B, positions, kernel * C)."""
    batch, length, channels = x.shape
    positions = (length - kernel) // stride + 1
    return x.as_strided(
        (batch, positions, kernel * channels), (length * channels, stride * channels, 1)
    )


class _Block:
    """`unet._FilmBlock` over (B, L, C)."""

    def __init__(self, block: nn.Module, batch: int, length: int, pack: bool) -> None:
        first, second, skip = block.first, block.second, block.skip
        self.first = _ConvBlock(first, batch, length, pack)  # type: ignore[arg-type]
        self.second = _ConvBlock(second, batch, length, pack)  # type: ignore[arg-type]
        self.skip = _Convolution(skip, batch, length, pack) if isinstance(skip, nn.Conv1d) else None

    def __call__(self, x: Tensor, film: tuple[Tensor, Tensor]) -> Tensor:
        hidden = torch.addcmul(film[1], self.first(x), film[0])
        return self.second(hidden) + (x if self.skip is None else self.skip(x))


class _ConvBlock:
    def __init__(self, block: nn.Module, batch: int, length: int, pack: bool) -> None:
        conv, norm = block.conv, block.norm
        assert isinstance(conv, nn.Conv1d)
        assert isinstance(norm, nn.GroupNorm)
        self.conv = _Convolution(conv, batch, length, pack)
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        # (B, C, 1, L) channels-last is the same memory as (B, L, C).
        out = self.norm(out.permute(0, 2, 1)[:, :, None])[:, :, 0].permute(0, 2, 1)
        return F.mish(out)


class FastUNet:
    """Stands in for a :class:`UNetDenoiser` while sampling; same three calls, same numbers."""

    def __init__(self, net: UNetDenoiser, batch: int = 2, backend: str = "") -> None:
        """``batch`` rows are expected (2 with guidance); others work, a little slower.

        ``backend`` of `torch.compile`, where wanted: `inductor` makes CUDA graphs of a step, at the
        cost of a minute at the first chunk.
        """
        self.net, pack = net, not backend
        levels = len(net.down)
        sizes = [net.horizon >> level for level in range(levels)]

        def pair(blocks: nn.Module, length: int) -> list[_Block]:
            return [_Block(block, batch, length, pack) for block in blocks.children()]

        self.down = [pair(net.down[i], sizes[i]) for i in range(levels)]
        self.shrink = [_Convolution(c, batch, n, pack) for c, n in zip(net.shrink, sizes)]  # type: ignore[arg-type]
        self.middle = pair(net.middle, sizes[-1])
        self.up = [pair(net.up[i], sizes[levels - 1 - i]) for i in range(levels)]
        self.grow = [
            _Doubling(c, batch, n, pack)  # type: ignore[arg-type]
            for c, n in zip(net.grow, reversed(sizes[1:]))
        ]
        self.last = _ConvBlock(net.last, batch, net.horizon, pack)
        self.output = _Convolution(net.output, batch, net.horizon, pack)
        self._step: Step = self._denoise
        if backend:
            mode = "reduce-overhead" if backend == "inductor" else None
            self._step = torch.compile(self._denoise, backend=backend, mode=mode, dynamic=False)

    def local(self, prefix: Tensor, mask: Tensor) -> list[Tensor]:
        return [term.transpose(1, 2) for term in self.net.local(prefix, mask)]

    def modulations(self, condition: Tensor) -> list[Tensor]:
        return self.net.modulations(condition)

    def denoise(self, noisy: Tensor, local: list[Tensor], modulations: list[Tensor]) -> Tensor:
        # A compiled step owns its output until the next one: keep a copy.
        out = self._step(noisy, local, modulations)
        return out if self._step == self._denoise else out.clone()

    def _denoise(self, noisy: Tensor, local: list[Tensor], modulations: list[Tensor]) -> Tensor:
        film = (_scale_and_shift(row) for row in modulations)
        x, skips = noisy, []
        for level, (first, second) in enumerate(self.down):
            x = first(x, next(film))
            if level == 0 and local:
                x = x + local[0]
            x = second(x, next(film))
            skips.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
        for block in self.middle:
            x = block(x, next(film))
        for level, (first, second) in enumerate(self.up):
            x = second(first(torch.cat([x, skips.pop()], dim=2), next(film)), next(film))
            if level < len(self.grow):
                x = self.grow[level](x)
        if local:
            x = x + local[1]
        return self.output(self.last(x))


def _scale_and_shift(row: Tensor) -> tuple[Tensor, Tensor]:
    scale, shift = row[:, None].chunk(2, dim=2)
    return 1 + scale, shift


def fold_encoder(encoder: Encoder) -> Encoder:
    """A copy for inference: frozen BatchNorm folded into its convolution, channels-last."""
    out = copy.deepcopy(encoder).eval().requires_grad_(False)
    for net in out.nets:
        for module in list(net.modules()):
            _fold_children(module)
    return out.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _fold_children(module: nn.Module) -> None:
    children = list(module.named_children())
    for (_, conv), (name, norm) in zip(children, children[1:]):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm):
            scale = norm.weight / torch.sqrt(norm.running_var + 1e-5)
            conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], False)
            conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale, False)
            setattr(module, name, nn.Identity())
