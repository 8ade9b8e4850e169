"""Checkpoints of a run: one safetensors file, written whole or not at all, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dexpie_ros.policy.files import save_checkpoint

FORMAT = "dexpie-checkpoint/1"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed from; says what to do."""


class Checkpoint:
    """Weights, averaged weights, moments of AdamW and the step counter."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        return self.path.is_file()

    def save(
        self,
        step: int,
        model: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Replace the file atomically: a kill at any time leaves the last good one."""
        tensors: dict[str, Tensor] = {}
        for prefix, module in (("model", model), ("average", average)):
            for name, value in module.state_dict().items():
                tensors[f"{prefix}/{name}"] = value.detach().contiguous()
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value.detach().contiguous()
        save_checkpoint(self.path, tensors, {"format": FORMAT, "step": str(step), **(facts or {})})

    def load(self, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restore what :meth:`save` wrote, into objects of the same settings; returns the step."""
        try:
            with safe_open(str(self.path), "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error}; delete it") from None
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.path}: format {metadata.get('format')!r}, expected {FORMAT!r}; delete it or "
                "use the version that wrote it"
            )
        try:
            for prefix, module in (("model", model), ("average", average)):
                module.load_state_dict(_part(tensors, prefix))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"{self.path}: is of another network ({reason}); train into another folder"
            ) from None
        moments = {key: _part(tensors, key) for key in _MOMENTS}
        for name, parameter in model.named_parameters():
            if name in moments["exp_avg"]:
                optimizer.state[parameter] = {
                    # AdamW keeps its step counter on the CPU unless capturable or fused on CUDA.
                    key: moments[key][name].to(parameter.device).clone()
                    for key in _MOMENTS
                }
        return int(metadata["step"])


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
