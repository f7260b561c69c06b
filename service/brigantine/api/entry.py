"""The way in: the outermost layer of ours, around every route.

BentoML's own routes for health and metrics come before anything that is mounted, answer in their own
shapes, and its metrics layer makes a series of every unknown path. So this product does not mount an app
below BentoML's but puts `Entry` around it, as an ASGI middleware (`bentoml.Service.add_asgi_middleware`):
every HTTP request is answered here, and BentoML keeps the processes, the start and the stop.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..engine import Engine
from ..errors import BrigantineError, MethodNotAllowed, NotFound
from . import admin, native, openai
from .http import error_response

__all__ = ["Entry", "Host"]

log = logging.getLogger("brigantine.api")
access = logging.getLogger("brigantine.access")

_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass
class Host:
    """What the routes reach: the engine, once it runs."""

    engine: Engine | None = None
    access_log: bool = True


class Entry:
    """Answers every HTTP request; hands anything else (the lifespan) to the app inside."""

    def __init__(self, app: ASGIApp, host: Host) -> None:
        self._app = app
        self._host = host
        self._router = Router([*admin.routes(), *native.routes(), *openai.routes()], redirect_slashes=False)
        self._router.default = _no_such_route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, _request_id(scope))
        scope["state"] = {"host": self._host, "request_id": answer.request_id}
        scope["app"] = (
            self  # makes starlette raise its 404s and 405s, instead of answering them in plain text
        )
        begin = time.perf_counter()
        try:
            await self._router(scope, receive, answer)
        except ClientDisconnect:
            # Nobody reads it, but BentoML's timeout layer around us keeps a task until the first byte of an answer.
            await Response(status_code=499)(scope, receive, answer)
        except Exception as error:
            if answer.status:
                raise  # too late for an error object: the connection must break
            ours = _as_ours(error, scope)
            if ours.status == 500:
                log.error("%s %s %s", scope["method"], _path(scope), answer.request_id, exc_info=error)
            await error_response(ours)(scope, receive, answer)
        if self._host.access_log:
            access.info(
                "%s %s %s %.1f ms %s",
                scope["method"], _path(scope), answer.status, 1e3 * (time.perf_counter() - begin), answer.request_id,
            )  # fmt: skip


class _Answer:
    """`send` with the request's id on the answer, and the status remembered."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self.request_id.encode())]
        await self._send(message)


def _path(scope: Scope) -> str:
    """The path as the log may have it: a new line in it must not begin one there."""
    return quote(scope["path"])


def _request_id(scope: Scope) -> str:
    """The client's own id when it sent a sane one, so that its log and ours can be joined."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value.decode("latin-1")):
            return value.decode("latin-1")
    return f"req_{uuid.uuid4().hex}"


def _as_ours(error: Exception, scope: Scope) -> BrigantineError:
    if isinstance(error, BrigantineError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        methods = (error.headers or {}).get("Allow", "GET, HEAD").split(", ")  # from a set: in any order
        allowed = ", ".join(sorted(methods))
        return MethodNotAllowed(f"{scope['path']}: expected {allowed}, got {scope['method']}", allowed)
    if isinstance(error, HTTPException) and error.status_code == 404:
        return _no_route(scope)
    return BrigantineError("an internal error; the service's log has it under this x-request-id")


async def _no_such_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise _no_route(scope)


def _no_route(scope: Scope) -> NotFound:
    return NotFound(f"no route {scope['path']}; /openapi.json lists them, /docs shows them")
