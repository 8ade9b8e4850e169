"""The evaluation's own errors."""

from __future__ import annotations


class EvaluationError(ValueError):
    """Trials, labels or settings that do not fit together; the message says what to do."""


class ExperimentError(RuntimeError):
    """An experiment that ran and could not reach what it was asked for."""
