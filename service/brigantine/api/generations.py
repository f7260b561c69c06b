"""`POST /v1/<plural>/generations`: any content in the shape of OpenAI's images route, for clients that people have.

https://platform.openai.com/docs/api-reference/images/create. `seed` and the plugin's own Params (`label`)
travel beside the standard fields: `extra_body={"seed": 7, "label": 7}` in the official client.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.requests import Request
from starlette.responses import Response

from ..engine import Generation, Served
from ..errors import BadParams, FieldError
from ..request import parse
from .accept import accepted, as_bytes, check_single
from .http import Json, b64, engine_of, served_for, server_timing
from .plan import Draft, Plan
from .routes import Route

__all__ = ["GenerationsBody", "routes", "without_effect"]

_WITHOUT_EFFECT = ("prompt", "safety_identifier", "user")
_WITHOUT_EFFECT_ON_IMAGES = (
    "background", "moderation", "output_compression", "partial_images", "quality", "size", "style",
)  # fmt: skip


class GenerationsBody(BaseModel):
    """OpenAI's part of a request. All other fields are the plugin's Params, with `n` and `seed`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: StrictStr | None = Field(
        None, max_length=256, description="A model that makes this content. Absent or empty: the default."
    )
    output_format: StrictStr | None = Field(
        default=None,
        max_length=80,
        description="The second word of a media type that the model makes, such as png.",
    )
    response_format: Literal["b64_json"] | None = Field(
        None, description="What is made comes in the answer, not by URL."
    )
    stream: Literal[False] | None = Field(default=None, description="One answer, no stream.")


def generations(request: Request) -> Draft:
    """Generate in OpenAI's form; the bytes of one medium for a client that names its type in `Accept`."""
    content = engine_of(request).registry.content(request.path_params["plural"])
    return partial(_plan, request, content)


def without_effect(content: str) -> tuple[str, ...]:
    """OpenAI's fields that are taken and change nothing, where the plugin's Params have none of that name."""
    return _WITHOUT_EFFECT + (_WITHOUT_EFFECT_ON_IMAGES if content == "image" else ())


def routes() -> list[Route]:
    return [Route.planned("/v1/{plural}/generations", generations)]


def _plan(request: Request, content: str, sent: dict[str, Any], size: int) -> Plan:
    body = parse(GenerationsBody, sent)
    served = served_for(engine_of(request), content, body.model)
    types = _types(served, body.output_format)
    wanted = accepted(request, types)
    params = _params(served, body.model_extra or {})
    check_single(wanted, params)
    media_type = wanted or types[0]
    answer = partial(_answer, media_type) if wanted is None else as_bytes
    return Plan(served, params, media_type, answer, also=GenerationsBody.model_fields)


def _params(served: Served, fields: dict[str, Any]) -> dict[str, Any]:
    """The plugin's part. OpenAI's optional fields may be null, and its clients always send a prompt."""
    known, taken = served.request.model_fields, without_effect(served.plugin.content)
    return {
        name: value
        for name, value in fields.items()
        if not (value is None if name in known else name in taken)
    }


def _types(served: Served, output_format: str | None) -> tuple[str, ...]:
    """The media types that may be made, the default first; only that of `output_format` when it is given."""
    types = served.plugin.types
    if output_format is None:
        return types
    formats = {kind.partition("/")[2]: kind for kind in reversed(types)}  # the first of equals
    if output_format not in formats:
        expected = f"one of {', '.join(kind.partition('/')[2] for kind in types)}"
        raise BadParams([FieldError("output_format", expected, repr(output_format))])
    return (formats[output_format],)


def _answer(media_type: str, generation: Generation) -> Response:
    data: list[dict[str, Any]] = []
    for seed, media in zip(generation.seeds, generation.media, strict=True):
        item: dict[str, Any] = {"b64_json": b64(media), "seed": seed, **media.info}
        if "label" in media.info:
            item["revised_prompt"] = media.info["label"]  # what was drawn, where OpenAI says what it drew
        data.append(item)
    answer: dict[str, Any] = {
        "id": generation.id,
        "created": generation.created,
        "model": generation.model,
        "data": data,
        "output_format": media_type.partition("/")[2],
    }
    if size := generation.media[0].info.get("size"):
        answer["size"] = size
    return Json(answer, headers=[server_timing(generation)])
