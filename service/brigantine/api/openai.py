"""OpenAI's images route, for the clients that people already have.

https://platform.openai.com/docs/api-reference/images/create. `seed` and the plugin's own Params (`label`)
travel beside the standard fields: `extra_body={"seed": 7, "label": 7}` in the official client.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.requests import Request
from starlette.responses import Response

from ..engine import Engine, Generation, Served
from ..errors import BadParams, FieldError
from ..request import parse
from .http import Json, b64, engine_of, generate, read_object, server_timing
from .routes import Route

__all__ = ["ImagesBody", "routes"]

_NO_EFFECT = (
    "Taken, without effect: a model has one size and one quality. The answer's `size` is the real one."
)


class ImagesBody(BaseModel):
    """OpenAI's part of an images request. All other fields are the plugin's Params, with `n` and `seed`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: StrictStr | None = Field(
        None, max_length=256, description="A model that makes images. Absent or empty: the default."
    )
    output_format: StrictStr | None = Field(default=None, max_length=32, description="png, webp or jpeg.")
    response_format: Literal["b64_json"] | None = Field(
        None, description="Images come in the answer, not by URL."
    )
    stream: Literal[False] | None = Field(default=None, description="One answer, no stream.")
    background: Any = Field(default=None, description=_NO_EFFECT)
    moderation: Any = Field(default=None, description=_NO_EFFECT)
    output_compression: Any = Field(default=None, description=_NO_EFFECT)
    partial_images: Any = Field(default=None, description=_NO_EFFECT)
    quality: Any = Field(default=None, description=_NO_EFFECT)
    safety_identifier: Any = Field(default=None, description=_NO_EFFECT)
    size: Any = Field(default=None, description=_NO_EFFECT)
    style: Any = Field(default=None, description=_NO_EFFECT)
    user: Any = Field(default=None, description=_NO_EFFECT)


async def images(request: Request) -> Response:
    """`POST /v1/images/generations`."""
    engine = engine_of(request)
    sent, size = await read_object(request, engine.settings)
    body = parse(ImagesBody, sent)
    served = _image_model(engine, body.model)
    media_type = _media_type(served, body.output_format)
    known = served.request.model_fields
    # OpenAI's optional fields may be null, and its clients always send a prompt.
    params = {k: v for k, v in (body.model_extra or {}).items() if not (v is None and k in known)}
    if "prompt" not in known:
        params.pop("prompt", None)
    generation = await generate(request, served, params, size, media_type, also=ImagesBody.model_fields)
    return _answer(generation, media_type)


def routes() -> list[Route]:
    return [Route("/v1/images/generations", images, "POST")]


def _image_model(engine: Engine, name: str | None) -> Served:
    """The model asked for; absent or empty means the default.

    Raises:
        ModelNotFound: there is no such model.
        BadParams: it makes something else than images.
    """
    served = engine.served(name or engine.registry.default("image", engine.settings.default_model))
    if served.plugin.content != "image":
        got = f"{name!r}, which makes {served.plugin.content}"
        raise BadParams([FieldError("model", "a model that makes images", got)])
    return served


def _media_type(served: Served, output_format: str | None) -> str:
    types = served.plugin.types
    wanted = types[0] if output_format is None else f"image/{output_format}"
    if wanted not in types:
        formats = ", ".join(kind.partition("/")[2] for kind in types)
        raise BadParams([FieldError("output_format", f"one of {formats}", repr(output_format))])
    return wanted


def _answer(generation: Generation, media_type: str) -> Response:
    data: list[dict[str, Any]] = []
    for seed, media in zip(generation.seeds, generation.media, strict=True):
        item: dict[str, Any] = {"b64_json": b64(media), "seed": seed, **media.info}
        if "label" in media.info:
            item["revised_prompt"] = media.info["label"]  # what was drawn, where OpenAI says what it drew
        data.append(item)
    return Json(
        {
            "id": generation.id,
            "created": generation.created,
            "model": generation.model,
            "data": data,
            "output_format": media_type.partition("/")[2],
            "size": generation.media[0].info.get("size"),
        },
        headers=server_timing(generation),
    )
