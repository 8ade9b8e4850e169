"""The JSON object that a change on the page sends, read with a bound on its size."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from dexpie_ros.episodes.episode import EpisodeError

LARGEST = 1 << 20
"""Bytes of an annotation."""
SHORT = 10_000
"""Bytes of a command."""


async def json_object(request: Request, largest: int = LARGEST) -> dict[str, Any]:
    """The body; EpisodeError, which the page answers with 422, where it is anything else.

    No more than ``largest`` bytes are taken in.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > largest:
            raise EpisodeError("the request is too large")
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise EpisodeError("the request is no JSON") from None
    if not isinstance(values, dict):
        raise EpisodeError("the request is no JSON object")
    return values
