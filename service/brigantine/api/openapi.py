"""The OpenAPI document, built from the Params of the models in service."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import version
from typing import Any

from ..contract import plural_of
from ..engine import Engine, Served
from .chat import ChatBody
from .completions import CompletionsBody
from .fields import WITHOUT_EFFECT
from .generations import GenerationsBody, without_effect
from .stream import EVENTS
from .text import CONTENT, TextBody

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
    served = [engine.served(name) for name, record in engine.registry.models.items() if record.loaded]
    paths: dict[str, Any] = {
        "/v1/models": _get("models", "List the models in service."),
        "/v1/models/{model}": _get("models", "Show one model: labels, tensors, scores, training.", "model"),
        "/v1/plugins": _get("plugins", "List the plugins, and why one was rejected."),
        "/v1/plugins/{plugin}": _get("plugins", "Show one plugin.", "plugin"),
        "/livez": _get("health", "The process answers."),
        "/readyz": _get("health", "Every model in service has run its warm-up."),
        "/metrics": {"get": _get("health", "Prometheus metrics.")["get"] | _responses(("text/plain",))},
    }
    schemas: dict[str, Any] = {"Error": _ERROR}
    makers: defaultdict[str, list[tuple[Served, dict[str, Any]]]] = defaultdict(list)
    for one in served:
        schema = _schema(one, schemas)
        paths[f"/v1/models/{one.record.name}/generate"] = _generate(one, schema)
        makers[plural_of(one.plugin)].append((one, schema))
    for plural, several in makers.items():
        paths[f"/v1/{plural}/generations"] = _generations(plural, several)
    plugins = [record.plugin for record in engine.registry.plugins.values()]
    if any(plugin and plugin.content == CONTENT for plugin in plugins):
        pairs = [pair for several in makers.values() for pair in several]
        paths |= _texts([schema for one, schema in pairs if one.plugin.content == CONTENT], schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Brigantine", "version": version("brigantine")},
        "paths": paths,
        "components": {"schemas": schemas},
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


def _schema(served: Served, schemas: dict[str, Any]) -> dict[str, Any]:
    """The request's schema; its definitions go to `schemas` under the model's name, so that no two can meet."""
    prefix = f"{served.record.name}."
    schema = served.request.model_json_schema(ref_template=f"#/components/schemas/{prefix}{{model}}")
    schemas.update({prefix + name: definition for name, definition in schema.pop("$defs", {}).items()})
    return schema


def _generate(served: Served, schema: dict[str, Any]) -> dict[str, Any]:
    summary = f"Generate {served.plugin.content} with the model {served.record.name}."
    types = ("application/json", *served.plugin.types, EVENTS)
    return {"post": _post(served.plugin.content, summary, schema, types)}


def _generations(plural: str, makers: list[tuple[Served, dict[str, Any]]]) -> dict[str, Any]:
    """OpenAI's fields, and beside them every Params field of any model that makes this content."""
    schema = GenerationsBody.model_json_schema()
    taken = without_effect(makers[0][0].plugin.content)  # one plural is of one content
    ignored = {name: {"description": "Taken, without effect."} for name in taken}
    params = {name: field for _, request in makers for name, field in request["properties"].items()}
    schema["properties"] = ignored | params | schema["properties"]
    summary = f"Generate {plural} in the shape of OpenAI's images API."
    types = dict.fromkeys(kind for served, _ in makers for kind in served.plugin.types)
    return {"post": _post(plural, summary, schema, ("application/json", *types))}


def _texts(requests: list[dict[str, Any]], schemas: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's routes for text, with every Params field of any model that makes it beside their own."""
    params = {name: field for request in requests for name, field in request["properties"].items()}
    ignored = {name: {"description": "Taken, without effect."} for name in sorted(WITHOUT_EFFECT)}

    def route(kind: type[TextBody], summary: str) -> dict[str, Any]:
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schema["properties"] = ignored | params | schema["properties"]
        return {"post": _post(CONTENT, summary, schema, ("application/json", EVENTS))}

    return {
        "/v1/completions": route(
            CompletionsBody, "Go on from a prompt, in the shape of OpenAI's completions API."
        ),
        "/v1/chat/completions": route(ChatBody, "Say the next message, in the shape of OpenAI's chat API."),
    }


def _post(tag: str, summary: str, schema: dict[str, Any], types: tuple[str, ...]) -> dict[str, Any]:
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
