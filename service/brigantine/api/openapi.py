"""The OpenAPI document, built from the Params of the models in service."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ..engine import Engine, Served
from .openai import ImagesBody

__all__ = ["document"]

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
                "errors": {"type": "array", "items": {"type": "object"}},
            },
        }
    },
}


def document(engine: Engine) -> dict[str, Any]:
    """OpenAPI 3.1 for this engine: the fixed routes, and one typed route for each model."""
    served = [engine.served(name) for name, record in engine.registry.models.items() if record.plugin]
    paths: dict[str, Any] = {
        "/v1/models": _get("models", "List the models in service."),
        "/v1/models/{model}": _get("models", "Show one model: labels, tensors, scores, training.", "model"),
        "/v1/plugins": _get("plugins", "List the plugins, and why one was rejected."),
        "/livez": _get("health", "The process answers."),
        "/readyz": _get("health", "Every model in service has run its warm-up."),
        "/metrics": _get("health", "Prometheus metrics."),
    }
    for one in served:
        paths[f"/v1/models/{one.record.name}/generate"] = _generate(one)
    images = [one for one in served if one.plugin.content == "image"]
    if images:
        paths["/v1/images/generations"] = _images(images)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Brigantine", "version": version("brigantine")},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


def _get(tag: str, summary: str, *parameters: str) -> dict[str, Any]:
    return {
        "get": {
            "tags": [tag],
            "summary": summary,
            "parameters": [_path(p) for p in parameters],
            **_responses(),
        }
    }


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _generate(served: Served) -> dict[str, Any]:
    summary = f"Generate {served.plugin.content} with the model {served.record.name}."
    types = ("application/json", *served.plugin.types)
    return {"post": _post(served.plugin.content, summary, served.request.model_json_schema(), types)}


def _images(served: list[Served]) -> dict[str, Any]:
    """OpenAI's fields, and beside them every Params field of any model that makes images."""
    schema = ImagesBody.model_json_schema()
    for one in served:
        params = one.request.model_json_schema()
        schema["properties"] = params["properties"] | schema["properties"]
        schema.setdefault("$defs", {}).update(params.get("$defs", {}))
    summary = "Generate images, as OpenAI's images API does."
    return {"post": _post("image", summary, schema, ("application/json",))}


def _post(tag: str, summary: str, schema: dict[str, Any], types: tuple[str, ...]) -> dict[str, Any]:
    # Definitions stay inside the body's schema, so that two plugins may use one name for two things.
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"tags": [tag], "summary": summary, "requestBody": body, **_responses(types)}


def _responses(types: tuple[str, ...] = ("application/json",)) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "responses": {
            "200": {"description": "As asked for.", "content": {kind: {} for kind in types}},
            "default": {"description": "OpenAI's error object.", "content": error},
        }
    }
