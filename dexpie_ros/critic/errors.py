"""The critic's own error."""

from __future__ import annotations


class CriticError(ValueError):
    """Data or settings that no critic or label can be made of; the message says what to do."""
