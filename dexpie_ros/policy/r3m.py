"""Published R3M weights: read safely, converted once, known by their SHA-256.

The published file (`r3m_18/model.pt` and so on) is a pickle ``{"r3m": state_dict, ...}`` with keys
``module.convnet.*`` beside a language head. It is read with ``weights_only=True``, so it can run no
code; the trunk is written once to ``<file>.safetensors`` beside it and read from there afterwards.
R3M itself takes 0 .. 255 and its iDP3 fork 0 .. 1; here the encoder scales, so the file is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dexpie_ros.policy.files import save_checkpoint

_TRUNK = "module.convnet."
_FORMAT = "dexpie-resnet/1"
_BROKEN = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch.load raises where bytes of a file are wrong: found by changing them at random."""


class WeightsError(ValueError):
    """A file that holds no usable encoder weights; says what to do."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A trunk's tensors under torchvision's names, and the SHA-256 of the file they came from."""

    tensors: dict[str, Tensor]
    sha256: str
    source: str


def read(path: str | Path) -> Weights:
    """Weights from a published R3M file (.pt) or from safetensors with torchvision's key names.

    Raises WeightsError where the file is missing or anything else.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise WeightsError(
            f"{file}: no such file; give encoder.weights the R3M model.pt, or `random` to start "
            "from nothing"
        )
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    converted = file.with_name(file.name + ".safetensors")
    if converted.is_file():
        # What cannot be read there is made anew: the original is at hand.
        with contextlib.suppress(WeightsError):
            weights = _read_safetensors(converted)
            if weights.sha256 == digest:
                return weights
    tensors = _read_published(file)
    metadata = {"format": _FORMAT, "sha256": digest, "source": file.name}
    try:
        save_checkpoint(converted, tensors, metadata)
    except OSError:
        # A folder that cannot be written to costs the conversion at every start, nothing else.
        pass
    return Weights(tensors, digest, file.name)


def load_into(trunk: nn.Module, weights: Weights) -> list[str]:
    """Copy ``weights`` into ``trunk``; returns the names of parameters that had none.

    Only GroupNorm has none. WeightsError where the file is of another network.
    """
    wanted = dict(trunk.state_dict())
    given = {k: v for k, v in weights.tensors.items() if not k.endswith("num_batches_tracked")}
    grouped = any(isinstance(m, nn.GroupNorm) for m in trunk.modules())
    if grouped:
        given = {k: v for k, v in given.items() if "running_" not in k}
    wrong = sorted(
        k
        for k in wanted.keys() | given.keys()
        if k not in wanted or k not in given or wanted[k].shape != given[k].shape
    )
    if wrong:
        raise WeightsError(
            f"{weights.source}: is of another network: {len(wrong)} tensors do not fit, first "
            f"{wrong[0]}; set encoder.arch to the file's (18, 34 or 50 layers)"
        )
    trunk.load_state_dict(given)
    return [k for k in wanted if "bn" in k or "downsample.1" in k] if grouped else []


def _read_published(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{file}: not a PyTorch file of plain tensors ({reason[:120]}); download R3M's model.pt "
            "again. Files that need code to be read are refused"
        ) from None
    state = content.get("r3m") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(f"{file}: has no entry 'r3m'; expected the published R3M model.pt")
    tensors = {
        key[len(_TRUNK) :]: value.float().contiguous()
        for key, value in state.items()
        if isinstance(key, str) and key.startswith(_TRUNK) and isinstance(value, Tensor)
    }
    unused = ("fc.", "num_batches_tracked")
    tensors = {
        k: v
        for k, v in tensors.items()
        if not k.startswith(unused[0]) and not k.endswith(unused[1])
    }
    if not tensors:
        raise WeightsError(f"{file}: has no keys {_TRUNK}*; expected the published R3M model.pt")
    return tensors


def _read_safetensors(file: Path) -> Weights:
    try:
        with safe_open(str(file), "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors: {error}") from None
    tensors = {k: v for k, v in tensors.items() if not k.startswith("fc.")}
    digest = metadata.get("sha256") if metadata.get("format") == _FORMAT else None
    if digest is None:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Weights(tensors, digest, metadata.get("source", file.name))
