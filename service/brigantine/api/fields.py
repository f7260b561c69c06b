"""OpenAI's fields for text, and what becomes of those that a plugin's Params do not have.

What changes nothing is dropped; what would change the answer, and cannot, is refused.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from ..engine import Served
from ..errors import BadParams, FieldError

__all__ = ["REFUSED", "WITHOUT_EFFECT", "params_of"]

WITHOUT_EFFECT = frozenset({
    "metadata", "moderation", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user",
})  # fmt: skip
"""Taken, whatever they say."""

REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (),  # up to n
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Refused, but for null and these values, which ask for nothing."""

_OPTIONAL: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "max_tokens": (),
    "presence_penalty": (0,),
    "stop": ([],),
    "temperature": (1,),
    "top_p": (1,),
}
"""Those that many plugins have. Where one has not, clients that always send them are answered all the same."""


def params_of(served: Served, fields: Mapping[str, Any], n: int) -> dict[str, Any]:
    """What the plugin is asked for: of the fields of a request those that it has, and unknown ones, which it refuses.

    Raises:
        BadParams: some would change the answer, and cannot. Names each.
    """
    known = served.request.model_fields
    params = {name: value for name, value in fields.items() if name in known and value is not None}
    errors: list[FieldError] = []
    for name, value in fields.items():
        if name in known or name in WITHOUT_EFFECT:
            continue
        nothing = REFUSED.get(name, _OPTIONAL.get(name))
        if nothing is None:
            params[name] = value
        elif (
            value is not None
            and value not in nothing
            and not (name == "best_of" and value in range(1, n + 1))
        ):
            errors.append(FieldError(name, _expected(served, name, nothing), reprlib.repr(value)))
    if errors:
        raise BadParams(errors)
    return params


def _expected(served: Served, name: str, nothing: tuple[Any, ...]) -> str:
    allowed = " or ".join(["null", *map(repr, nothing), *(["at most n"] if name == "best_of" else [])])
    return f"{allowed} (model {served.record.name!r} can do no other)"
