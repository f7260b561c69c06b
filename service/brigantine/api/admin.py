"""Health, metrics, plugins and documentation."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ..contract import plural_of
from ..discovery import PluginRecord
from ..engine import Engine
from ..errors import NotFound, NotReady, PluginNotFound
from ..registry import isolation_of
from .http import Json, engine_of
from .openapi import document
from .routes import Route

__all__ = ["routes"]

_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Brigantine API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head>
<body><div id="docs"></div><script src="/docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true})</script></body></html>
"""


async def livez(request: Request) -> Response:
    """The process answers."""
    return Json({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Every model that can be served has run its warm-up, and there is at least one."""
    registry = engine_of(request).registry
    serving = {name: record.facts for name, record in registry.models.items() if record.facts}
    rejected = {name: record.reason for name, record in registry.models.items() if record.state == "rejected"}
    if not serving:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
        raise NotReady(f"no model can be served: {reasons or 'none was found; publish one and restart'}")
    devices = {name: facts.device for name, facts in serving.items()}
    fallbacks = [name for name, facts in serving.items() if facts.fell_back]
    return Json({"status": "ready", "models": devices, "gpu_fallback": fallbacks, "rejected": rejected})


async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    body, content_type = engine_of(request).metrics.exposition()
    return Response(body, headers={"content-type": content_type})


async def plugins(request: Request) -> Response:
    """Every plugin that was found, with its models; one that does not serve says why."""
    engine = engine_of(request)
    return Json(
        {"object": "list", "data": [_plugin(record, engine) for record in engine.registry.plugins.values()]}
    )


async def plugin(request: Request) -> Response:
    """One plugin."""
    engine = engine_of(request)
    name, known = request.path_params["plugin"], engine.registry.plugins
    if name not in known:
        raise PluginNotFound(f"plugin {name!r}: expected one of {', '.join(known) or 'none'}")
    return Json(_plugin(known[name], engine))


async def openapi(request: Request) -> Response:
    """The contract: every route, and the Params of every model."""
    return Json(document(engine_of(request)))


async def docs(request: Request) -> Response:
    """The contract, to read and to try."""
    return HTMLResponse(_DOCS)


async def asset(request: Request) -> Response:
    """A file of Swagger UI."""
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise NotFound(f"no route {request.url.path}; /docs needs {', '.join(_ASSETS)} only")
    return Response(_swagger_ui(name), media_type=_ASSETS[name])


async def index(request: Request) -> Response:
    return RedirectResponse("/docs")


def routes() -> list[Route]:
    return [
        Route("/", index),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/v1/plugins", plugins),
        Route("/v1/plugins/{plugin}", plugin),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/docs/assets/{name}", asset),
    ]


@cache
def _swagger_ui(name: str) -> bytes:
    """BentoML ships Swagger UI; serving its copy means that /docs works without the internet."""
    spec = importlib.util.find_spec("bentoml")
    assert spec is not None and spec.origin is not None, "bentoml is a dependency of this package"
    return (Path(spec.origin).parent / "_internal" / "server" / "static_content" / name).read_bytes()


def _plugin(record: PluginRecord, engine: Engine) -> dict[str, object]:
    plugin = record.plugin
    return {
        "id": record.name,
        "object": "plugin",
        "state": record.state,
        "reason": record.reason or None,
        "distribution": record.origin.distribution,
        "version": record.origin.version,
        "content": plugin.content if plugin else None,
        "route": f"/v1/{plural_of(plugin)}/generations" if plugin else None,
        "types": list(plugin.types) if plugin else [],
        "isolation": isolation_of(record, engine.settings),
        "params": plugin.params.model_json_schema() if plugin else None,
        "models": [
            {"id": model.name, "state": model.state, "reason": model.reason or None, "source": model.source}
            for model in engine.registry.models.values()
            if model.plugin_name == record.name
        ],
    }
