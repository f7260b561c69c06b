"""The way in: the outermost layer of ours, around every route.

BentoML's own routes for health and metrics come before anything that is mounted and answer in their own
shapes; its layers around a mounted app cost more than an image (`benchmarks/RESULTS.md`), keep a timer for each
request that was answered long ago, and make a series of every unknown path. So `Entry` stands outside of all of
them: it answers every HTTP request, with what those layers gave (ids, deadlines, limits, metrics, access log),
and BentoML keeps the processes, the start and the stop.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..engine import GONE, Engine
from ..errors import NotReady
from . import admin, chat, completions, generations, native
from .access import AccessLog
from .heads import Head, Heads, own_id
from .http import as_ours, error_response
from .routes import Router
from .stream import EVENTS

__all__ = ["Entry", "Exchange", "Host"]

_STREAM_BUFFER = 1 << 15
"""Bytes of a stream that may wait for its client here, and twice as many in the kernel, which doubles the number."""
_OF_A_CONNECTION = {"client", "server"}
"""What a scope says that its head does not."""
_TO_THE_LAST = {"/livez", "/metrics"}
"""What is answered while the service stops."""


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
        scope: the request.
        host: what the routes reach.
        own_id: the client's own id, or nothing.
    """

    __slots__ = ("_begin_s", "_host", "_scope", "request_id")

    def __init__(self, scope: Mapping[str, Any], host: Host, own_id: str) -> None:
        self.request_id = own_id or f"req_{getrandbits(128):032x}"
        self._scope = scope
        self._host = host
        self._begin_s = time.perf_counter()

    @property
    def scope(self) -> Scope:
        """The request, which knows of the host and the id."""
        return {**self._scope, "state": {"host": self._host, "request_id": self.request_id}}

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
        self._heads = Heads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, self._host, own_id(scope))
        scope = exchange.scope
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

    def exchange(self, head: Head) -> Exchange:
        """The exchange that a request begins."""
        return Exchange(head.scope, self._host, head.request_id)

    def head(self, scope: Scope, size: int) -> Head | None:
        """What a request says whose body has so many bytes.

        None where a plan is not all that there is to the answer; `__call__` has it, or says what is wrong.
        """
        if not self._takes(size):
            return None
        said = {name: value for name, value in scope.items() if name not in _OF_A_CONNECTION}
        said["state"] = {"host": self._host}
        try:
            route, said["path_params"] = self._router.find(scope["method"], scope["path"])
            return None if route.planner is None else Head.of(said, route.planner)
        except Exception:
            return None

    def known(self, data: bytes) -> tuple[Head, bytes] | None:
        """What a request says that is all that came, and its body, where another one has begun like it."""
        found = self._heads.find(data)
        return found if found is not None and self._takes(len(found[1])) else None

    def learn(self, data: bytes, head: Head, size: int) -> None:
        """Requests may begin like this one; see `Heads.learn`."""
        self._heads.learn(data, head, size)

    def _takes(self, size: int) -> bool:
        """Whether there may be a plan for a body of so many bytes."""
        engine = self._host.engine
        return engine is not None and not self._host.stopping and size <= engine.settings.max_body_bytes

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


def _path(scope: Mapping[str, Any]) -> str:
    """The path as the log may have it: a new line in it must not begin one there."""
    return quote(scope["path"])
