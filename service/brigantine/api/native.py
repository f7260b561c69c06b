"""The native routes: models, and generation with the plugin's own Params."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..engine import Generation, Served
from ..errors import NotAcceptable
from ..registry import ModelRecord
from . import http
from .http import Json, b64, engine_of, header, read_object, server_timing
from .routes import Route

__all__ = ["routes"]


async def models(request: Request) -> Response:
    """The models that can be asked for, in OpenAI's shape with ours beside it."""
    records = engine_of(request).registry.models.values()
    return Json(
        {"object": "list", "data": [_model(record) for record in records if record.state == "serving"]}
    )


async def model(request: Request) -> Response:
    """One model: its labels, tensors, scores and how it was trained."""
    record = engine_of(request).registry.find(request.path_params["model"])
    assert record.model is not None, "a record that `find` returns is serving"
    manifest = record.model.manifest.model_dump(mode="json", exclude={"name", "plugin", "format", "created"})
    return Json({**_model(record), "seeds": _seeds(record), **manifest})


async def generate(request: Request) -> Response:
    """Generate with the plugin's own Params; `Accept` decides between JSON and the medium's bytes."""
    engine = engine_of(request)
    served = engine.served(request.path_params["model"])
    wanted = _negotiate(",".join(header(request, b"accept")), served.plugin.types)
    body, size = await read_object(request, engine.settings)
    n: Any = body.get("n", 1)
    if wanted is not None and isinstance(n, int) and n > 1:
        raise NotAcceptable(
            f"n: expected 1 for an answer in {wanted}, got {n}; ask for application/json, or for one at a time"
        )
    generation = await http.generate(request, served, body, size, wanted)
    return _as_json(generation, served) if wanted is None else _as_bytes(generation)


def routes() -> list[Route]:
    return [
        Route("/v1/models", models),
        Route("/v1/models/{model}", model),
        Route("/v1/models/{model}/generate", generate, "POST"),
    ]


def _model(record: ModelRecord) -> dict[str, Any]:
    assert record.model and record.plugin and record.facts, "only models in service are shown"
    manifest = record.model.manifest
    return {
        "id": record.name,
        "object": "model",
        "created": int(manifest.created.timestamp()) if manifest.created else 0,
        "owned_by": record.source,
        "content": record.plugin.content,
        "plugin": record.plugin.name,
        "digest": record.model.digest,
        "device": record.facts.device,
    }


def _seeds(record: ModelRecord) -> dict[str, Any]:
    """What a seed guarantees, and what was seen at the start."""
    assert record.facts is not None, "only models in service are shown"
    return {
        "guarantee": "the same digest, params and seed give the same bytes, in any batch, at any position, in any "
        "process, on the same kind of device",
        "batched": record.facts.invariant,
        "tried_batch": record.facts.tried_batch,
    }


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


def _as_json(generation: Generation, served: Served) -> Response:
    data: list[Mapping[str, Any]] = [
        {"seed": seed, "type": media.type, **media.info, "b64_json": b64(media)}
        for seed, media in zip(generation.seeds, generation.media, strict=True)
    ]
    return Json(
        {
            "id": generation.id,
            "object": "generation",
            "created": generation.created,
            "model": generation.model,
            "content": served.plugin.content,
            "data": data,
            "stages_ms": {stage: round(1e3 * s, 3) for stage, s in generation.stages_s.items()},
        },
        headers=server_timing(generation),
    )


def _as_bytes(generation: Generation) -> Response:
    [media], [seed] = generation.media, generation.seeds
    headers = {"content-type": media.type, "x-seed": str(seed), "x-model": generation.model}
    return Response(media.body, headers=headers | server_timing(generation))
