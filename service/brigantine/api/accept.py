"""Content negotiation: whether a client wants JSON, or the bytes of one medium.

Both routes that generate ask here, so that `Accept` means the same on each.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..engine import Generation
from ..errors import GenerationFailed, NotAcceptable
from .http import header, server_timing

__all__ = ["accepted", "as_bytes", "check_single"]


def accepted(request: Request, made: tuple[str, ...]) -> str | None:
    """The media type of `made` that the client wants the bytes of, or None when it is to get JSON.

    Raises:
        NotAcceptable: `Accept` allows neither.
    """
    return _negotiate(",".join(header(request, b"accept")), made)


def check_single(wanted: str | None, body: Mapping[str, Any]) -> None:
    """The bytes of one medium are no answer for many.

    Raises:
        NotAcceptable: bytes are `wanted`, and the body asks for more than one.
    """
    n: Any = body.get("n", 1)
    if wanted is not None and isinstance(n, int) and n > 1:
        raise NotAcceptable(
            f"n: expected 1 for an answer in {wanted}, got {n}; ask for application/json, or for one at a time"
        )


def as_bytes(generation: Generation) -> Response:
    """The bytes of the only medium, with its seed and its model in headers.

    Raises:
        GenerationFailed: what the plugin says of its type cannot stand in a header.
    """
    [media], [seed] = generation.media, generation.seeds
    if not (media.type.isascii() and media.type.isprintable()):
        raise GenerationFailed(f"render(): expected a Media with a MIME type, got the type {media.type!r}")
    headers = {"content-type": media.type, "x-seed": str(seed), "x-model": generation.model}
    response = Response(media.body, headers=headers)
    response.raw_headers.append(server_timing(generation))
    return response


@lru_cache
def _negotiate(accept: str, made: tuple[str, ...]) -> str | None:
    """The media type to answer with, or None for JSON: the one that `Accept` likes best (RFC 9110, section 12.5.1).

    Of those that it likes as well, one that it names goes before one that a wildcard allows, and JSON before the
    others.

    Raises:
        NotAcceptable: the header allows nothing that this model can make.
    """
    ranges = _ranges(accept or "*/*")
    best = max(("application/json", *made), key=lambda kind: _liking(kind, ranges))  # the first of equals
    if _liking(best, ranges)[0] <= 0:
        raise NotAcceptable(f"Accept: expected application/json or one of {', '.join(made)}, got {accept!r}")
    return None if best == "application/json" else best


def _ranges(accept: str) -> dict[str, float]:
    """Each range of an Accept header, and its quality from 0 to 1."""
    ranges: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        ranges[kind] = _number(quality)
    return ranges


def _liking(made: str, ranges: Mapping[str, float]) -> tuple[float, int]:
    """The quality of the most specific range that `made` falls into, and how specific that is."""
    for specific, kind in ((2, made), (1, f"{made.partition('/')[0]}/*"), (0, "*/*")):
        if kind in ranges:
            return ranges[kind], specific
    return 0.0, 0


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0
