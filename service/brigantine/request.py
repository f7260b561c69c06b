"""A request: what the host adds to a plugin's Params, and how a body becomes one."""

from __future__ import annotations

import difflib
import random
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
from pydantic import BaseModel, Field, StrictInt, ValidationError, create_model
from pydantic_core import ErrorDetails

from .errors import BadParams, BadRequest, FieldError
from .model import Arrays
from .plugin import Params, Plugin
from .seeds import MAX_SEED

__all__ = [
    "RESERVED",
    "Request",
    "parse",
    "prepare_row",
    "request_type",
    "seed_of",
]

RESERVED = frozenset({"model", "n", "output_format", "response_format", "seed", "stream"})
"""Field names that belong to the host; a plugin's Params may not use them."""


class Request(Params):
    """The host's part of a request. `request_type` joins it to a plugin's Params."""

    n: StrictInt = 1
    seed: StrictInt | None = None


def request_type(params: type[Params], name: str, max_n: int) -> type[Request]:
    """A plugin's Params with the host's fields beside them: the body of `POST /v1/models/{model}/generate`."""
    joined = create_model(
        name,
        __base__=(Request, params),
        __doc__=params.__doc__,
        n=(
            StrictInt,
            Field(default=1, ge=1, le=max_n, description="How many to make, each from its own seed."),
        ),
        seed=(
            StrictInt | None,
            Field(
                default=None,
                ge=0,
                le=MAX_SEED,
                description="The same model, params and seed give the same bytes. Absent: drawn and reported.",
            ),
        ),
    )
    return cast("type[Request]", joined)


def seed_of(request: Request) -> int:
    """The request's own seed; for a request without one it is drawn, another one at each call."""
    return random.randint(0, MAX_SEED) if request.seed is None else request.seed


def prepare_row(plugin: Plugin[Any], params: Params, seed: int) -> Arrays:
    """One row, all its randomness from `seed`. Philox is counter-based: its bits are a function of the seed alone."""
    row = plugin.prepare(params, np.random.Generator(np.random.Philox(seed)))
    return {name: np.asarray(value) for name, value in row.items()}


Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], body: Mapping[str, Any], also: Iterable[str] = ()) -> Body:
    """Validate a request's body.

    Args:
        kind: what it should be.
        body: what came.
        also: fields that another part of the request takes, named in the hint for an unknown one.

    Raises:
        BadRequest: more fields than any request has.
        BadParams: all fields of a wrong type or out of bounds, at once.
    """
    if len(body) > _MAX_FIELDS:
        raise BadRequest(f"body: expected at most {_MAX_FIELDS} fields, got {len(body)}")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise BadParams(_fields(error.errors(), [*kind.model_fields, *also])) from None


def _fields(errors: list[ErrorDetails], known: list[str]) -> list[FieldError]:
    """One FieldError a field: a union reports each of its members, but the field is one."""
    merged: dict[str, FieldError] = {}
    for error in errors:
        field = str(error["loc"][0])[:_SHOWN] if error["loc"] else "body"
        one = _field(error, field, known)
        if field in merged:
            one = one._replace(expected=f"{merged[field].expected} or {one.expected}")
        merged[field] = one
    return list(merged.values())


def _field(error: ErrorDetails, field: str, known: list[str]) -> FieldError:
    came = _repr.repr(error["input"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(known)}"
        return FieldError(field, f"one of the known fields ({hint})", f"an unknown one, {came}")
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return FieldError(field, expected[:1].lower() + expected[1:], came)


_MAX_FIELDS = 64
_SHOWN = 80
_repr = reprlib.Repr()  # what came may be huge, or nested deeper than Python can follow
_repr.maxstring = _repr.maxother = _repr.maxlong = _SHOWN
_repr.maxlevel = 2
