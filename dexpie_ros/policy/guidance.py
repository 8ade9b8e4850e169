"""Classifier-free guidance towards I: eps_null + beta (eps_I - eps_null), both in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """Which branches each denoising step computes. Their rows follow each other: null, then I."""

    null: bool
    """Computes eps_null, to which I is withheld."""
    conditional: bool
    """Computes eps_I."""
    beta: float

    @classmethod
    def of(cls, kind: str, beta: float) -> Guidance:
        """``kind`` of optimality that the network knows; a beta of 0 or 1 leaves one branch."""
        knows = kind != "none"
        return cls(not knows or beta != 1.0, knows and beta != 0.0, beta)

    @property
    def both(self) -> bool:
        """Otherwise one of them, and nothing to join."""
        return self.null and self.conditional

    def repeat(self, rows: Tensor) -> Tensor:
        """Rows (B, ...) once for each branch."""
        return torch.cat([rows, rows]) if self.both else rows

    def withheld(self, batch: int, device: torch.device) -> Tensor:
        """Which rows do not see I, bool."""
        null = torch.ones(batch * self.null, dtype=torch.bool, device=device)
        conditional = torch.zeros(batch * self.conditional, dtype=torch.bool, device=device)
        return torch.cat([null, conditional])

    def join(self, out: Tensor) -> Tensor:
        """The prediction (B, ...) of the branches' rows."""
        if not self.both:
            return out
        null, conditional = out.chunk(2)
        return null + self.beta * (conditional - null)
