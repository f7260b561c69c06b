"""Usage: how many tokens a text took, as its plugin says in its Media's `info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from .media import Media

__all__ = ["Usage", "usage_of"]


class Usage(NamedTuple):
    """Of one text, or of many."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Tokens of the prompt that needed no computing."""


def usage_of(media: Media) -> Usage | None:
    """What `info["usage"]` says; None for what says nothing, as most content does.

    It comes from anybody's plugin, so what is no count is none.
    """
    said = media.info.get("usage")
    if not isinstance(said, Mapping):
        return None
    counts = cast("Mapping[str, Any]", said)
    return Usage(*(_count(counts.get(name)) for name in Usage._fields))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
