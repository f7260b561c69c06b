"""The way in: the outermost layer of ours, around every route.

BentoML's own routes for health and metrics come before anything that is mounted and answer in their own
shapes; its layers around a mounted app cost more than an image (`benchmarks/RESULTS.md`), keep a timer for each
request that was answered long ago, and make a series of every unknown path. So `Entry` stands outside of all of
them: it answers every HTTP request, with what those layers gave (ids, deadlines, limits, metrics, access log),
and BentoML keeps the processes, the start and the stop.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..engine import GONE, Engine
from ..errors import BrigantineError, NotReady
from . import admin, chat, completions, generations, native
from .access import AccessLog
from .http import as_ours, error_response
from .plan import Planner
from .routes import Router
from .stream import EVENTS

__all__ = ["Entry", "Exchange", "Host"]

_STREAM_BUFFER = 1 << 15
"""Bytes of a stream that may wait for its client here, and twice as many in the kernel, which doubles the number."""
_TO_THE_LAST = {"/livez", "/metrics"}
"""What is answered while the service stops."""
_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass
class Host:
    """What the routes reach: the engine, once it runs."""

    engine: Engine | None = None
    access: AccessLog | None = field(default_factory=AccessLog)
    """Where answers are noted, if they are."""
    stopping: bool = False
    """Whether no new work is taken, and no connection kept."""


class Exchange:
    """One HTTP request and its answer: the id that both have, and the line in the log.

    Args:
        scope: the request, which learns of the host and the id.
        host: what the routes reach.
    """

    __slots__ = ("_begin_s", "_host", "_scope", "request_id")

    def __init__(self, scope: Scope, host: Host) -> None:
        self.request_id = _request_id(scope)
        self._scope = scope
        self._host = host
        self._begin_s = time.perf_counter()
        scope["state"] = {"host": host, "request_id": self.request_id}

    @property
    def is_last(self) -> bool:
        """Whether its connection is not kept."""
        return self._host.stopping

    def end(self, status: int) -> None:
        """It is over."""
        if self._host.access is not None:
            took_s = time.perf_counter() - self._begin_s
            self._host.access.note(self._scope["method"], _path(self._scope), status, took_s, self.request_id)


class Entry:
    """Answers every HTTP request; hands anything else (the lifespan) to the app inside."""

    def __init__(self, app: ASGIApp, host: Host) -> None:
        self._app = app
        self._host = host
        self._router = Router(
            route for room in (admin, native, generations, completions, chat) for route in room.routes()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = self.exchange(scope)
        answer = _Answer(send, exchange)
        try:
            response = await self._response(scope, receive)
            await response(scope, receive, answer)
        except ClientDisconnect:
            await answer.abandon()
        except Exception as error:
            if answer.status:
                raise  # too late for an error object: the connection must break
            await error_response(as_ours(error, scope))(scope, receive, answer)
        finally:
            exchange.end(answer.status)

    def exchange(self, scope: Scope) -> Exchange:
        """The exchange that a request begins."""
        return Exchange(scope, self._host)

    def planner(self, scope: Scope, size: int) -> Planner | None:
        """What plans the answer to a request with a body of so many bytes.

        None where no plan is all that there is to the answer; `__call__` has it, or says why there is none.
        """
        engine = self._host.engine
        if engine is None or self._host.stopping or size > engine.settings.max_body_bytes:
            return None
        try:
            route, scope["path_params"] = self._router.find(scope["method"], scope["path"])
        except BrigantineError:
            return None
        return route.planner

    async def _response(self, scope: Scope, receive: Receive) -> Response:
        if self._host.stopping and scope["path"] not in _TO_THE_LAST:
            raise NotReady(
                "the service is stopping and takes no new work; ask another replica, or try again in a second"
            )
        route, scope["path_params"] = self._router.find(scope["method"], scope["path"])
        return await route.endpoint(Request(scope, receive))


class _Answer:
    """`send` with the request's id on the answer, and the status remembered."""

    def __init__(self, send: Send, exchange: Exchange) -> None:
        self._send = send
        self._exchange = exchange
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._exchange.request_id.encode())]
            if self._exchange.is_last:
                message["headers"].append((b"connection", b"close"))
            if (b"content-type", EVENTS.encode()) in message["headers"]:
                self._keep_little()
        await self._send(message)

    def _keep_little(self) -> None:
        """Else some megabytes of a stream would go out before anybody knew that its client does not read."""
        transport = self._transport
        if transport is None or (connection := transport.get_extra_info("socket")) is None:
            return
        with suppress(OSError):  # it has just been closed
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _STREAM_BUFFER)
        transport.set_write_buffer_limits(_STREAM_BUFFER)

    @property
    def _transport(self) -> Any:
        """The connection, for what ASGI has no word for; None with another server than uvicorn."""
        return getattr(getattr(self._send, "__self__", None), "transport", None)

    async def abandon(self) -> None:
        """Nobody reads it any more. What has been sent of it must not wait for that."""
        transport = self._transport
        if self.status and transport is not None:
            transport.abort()
            await asyncio.sleep(0)  # uvicorn hears of it before it misses the rest
        self.status = GONE


def _path(scope: Scope) -> str:
    """The path as the log may have it: a new line in it must not begin one there."""
    return quote(scope["path"])


def _request_id(scope: Scope) -> str:
    """The client's own id when it sent a sane one, so that its log and ours can be joined."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value.decode("latin-1")):
            return value.decode("latin-1")
    return f"req_{getrandbits(128):032x}"
