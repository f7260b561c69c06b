"""The native routes: models, and generation with the plugin's own Params."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..engine import Generation, Served
from ..errors import BrigantineError
from ..media import Media
from ..registry import ModelRecord
from ..seeds import MAX_SEED, derive_seed
from .accept import accepted, as_bytes, check_single
from .http import Json, b64, engine_of, error_object, server_timing, stages_ms
from .plan import Draft, Plan
from .routes import Route
from .stream import EVENTS, Orders, Stream, event

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


def generate(request: Request) -> Draft:
    """Generate with the plugin's own Params; `Accept` decides between JSON, the medium's bytes, and their parts."""
    served = engine_of(request).served(request.path_params["model"])
    wanted = accepted(request, (*served.plugin.types, EVENTS))
    return partial(_as_events, request, served) if wanted == EVENTS else partial(_plan, served, wanted)


def routes() -> list[Route]:
    return [
        Route("/v1/models", models),
        Route("/v1/models/{model}", model),
        Route.planned("/v1/models/{model}/generate", generate),
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


_KEPT = (
    "the same digest, params and seed give the same bytes, in any batch, at any position, in any process, on the same "
    "kind of device"
)
_BROKEN = (
    "none: on this device the same batch may give other bits each time, for its kernels add up in any order"
)


def _seeds(record: ModelRecord) -> dict[str, Any]:
    """What a seed guarantees, and what was seen at the start."""
    assert record.facts is not None, "only models in service are shown"
    return {
        "guarantee": _KEPT if record.facts.repeats else _BROKEN,
        "batched": record.facts.invariant,
        "tried_batch": record.facts.tried_batch,
    }


def _plan(served: Served, wanted: str | None, sent: dict[str, Any], size: int) -> Plan:
    check_single(wanted, sent)
    return Plan(served, sent, wanted, partial(_as_json, served) if wanted is None else as_bytes)


def _as_json(served: Served, generation: Generation) -> Response:
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
            "stages_ms": stages_ms(generation),
        },
        headers=[server_timing(generation)],
    )


def _as_events(request: Request, served: Served, body: Mapping[str, Any], size: int) -> Response:
    seed: Any = body.get("seed")
    if seed is None:
        seed = random.randint(0, MAX_SEED)
        body = {**body, "seed": seed}
    return Stream(request, Orders(served, [body], size), _Events(seed))


class _Events:
    """Each part of a row as it is made, and at its end what JSON would say of it. See `Script`."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def part(self, index: int, media: Media) -> bytes:
        return event({"index": index, **media.info, **_body(media)}, "part")

    def whole(self, index: int, media: Media, shown: int) -> bytes:
        rest = Media(media.type, media.body[shown:])
        last = self.part(index, rest) if rest.body else b""
        seed = derive_seed(self._seed, index)
        return last + event({"index": index, "seed": seed, "type": media.type, **media.info}, "done")

    def error(self, error: BrigantineError) -> bytes:
        return event(error_object(error), "error")

    def end(self) -> bytes:
        return b""


def _body(media: Media) -> dict[str, Any]:
    if media.type.startswith("text/"):
        return {"text": media.body.decode("utf-8", "replace")}
    return {"b64_json": b64(media)}
