"""The direct way: uvicorn's HTTP protocol, which sees to it by itself when one generation is all that is asked for.

Such a request, once it has come as a whole, is planned and begun in the same turn of the event loop, and answered in
that in which it is made. It needs no task, no channel for its body and none for its answer, which took an eighth of the
time of a small image (`benchmarks/RESULTS.md`). All other requests go to the app, as uvicorn has it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from ..engine import GONE, Making
from .entry import Entry, Exchange
from .http import as_object, as_ours, error_response
from .plan import Plan, begin

__all__ = ["DirectProtocol"]

_GRACE_S = 0.25
"""How long a connection that has asked for nothing yet is kept at a stop."""


class DirectProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        entry: the outermost layer of the app that uvicorn serves.
        uvicorns: the arguments of uvicorn's own protocol.
    """

    def __init__(self, entry: Entry, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._entry = entry
        self._receiving = False
        self._held: tuple[RequestResponseCycle, Any] | None = None
        self._making: Making | None = None
        self._lost = False

    def data_received(self, data: bytes) -> None:
        self._receiving = True
        try:
            super().data_received(data)
        finally:
            self._receiving = False
            held, self._held = self._held, None
            if held is not None and not self._begins(*held):
                super()._start_asgi_task(*held)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        if self._making is not None:
            self._making.done.cancel()

    def shutdown(self) -> None:
        """As uvicorn's, but for a connection that was only just taken: closed with its request unread it is reset."""
        if not (self.cycle or self.transport.is_closing()):
            self.loop.call_later(_GRACE_S, super().shutdown)
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Called as soon as the head of a request has come; most have their body in the same packet."""
        if self._receiving:
            self._held = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _begins(self, cycle: RequestResponseCycle, app: Any) -> bool:
        """Begin to answer, unless the app has to."""
        if (
            cycle.more_body
            or cycle.waiting_for_100_continue
            or self.flow.write_paused  # it does not read what was answered before
            or self.transport.is_closing()
            or app is not self.app  # uvicorn refuses it
        ):
            return False
        scope: Any = cycle.scope
        size = len(cycle.body)
        planner = self._entry.planner(scope, size)
        if planner is None:
            return False
        exchange, request = self._entry.exchange(scope), Request(scope)
        try:
            plan = planner(request)(as_object(bytes(cycle.body)), size)
            if isinstance(plan, Response):
                return False
            making = begin(request, plan, size)
        except BaseException as error:  # a plugin's validation may raise anything
            self._take(cycle)
            self._answer(cycle, exchange, error_response(as_ours(error, scope)))
            return True
        self._take(cycle)
        self._making = making
        making.done.add_done_callback(partial(self._made, cycle, exchange, plan, making))
        return True

    def _take(self, cycle: RequestResponseCycle) -> None:
        """This request is ours: the cycle lets go of its body, and of this connection, which holds it."""
        cycle.body = bytearray()
        cycle.on_response = _nothing
        self.flow.resume_reading()  # a hang-up has to be read, too

    def _made(
        self,
        cycle: RequestResponseCycle,
        exchange: Exchange,
        plan: Plan,
        making: Making,
        done: asyncio.Future[None],
    ) -> None:
        self._making = None
        if self._lost or done.cancelled():
            exchange.end(GONE)
            return
        self._answer(cycle, exchange, _response(cycle.scope, plan, making))

    def _answer(self, cycle: RequestResponseCycle, exchange: Exchange, response: Response) -> None:
        """Write all of the answer, as the cycle would."""
        cycle.keep_alive = cycle.keep_alive and not exchange.is_last
        headers = [
            *cycle.default_headers,
            *response.raw_headers,
            (b"x-request-id", exchange.request_id.encode()),
        ]
        if not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % header for header in headers]
        head = b"".join((STATUS_LINE[response.status_code], *lines, b"\r\n"))
        self.transport.writelines((head, response.body))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
        exchange.end(response.status_code)


def _response(scope: Any, plan: Plan, making: Making) -> Response:
    """The answer, of what is done."""
    error = making.done.exception()
    if error is not None:  # which is not raised here: it would remember this frame, and so all that we have
        return error_response(as_ours(error, scope))
    try:
        return plan.answer(making.generation())
    except Exception as error:
        return error_response(as_ours(error, scope))


def _nothing() -> None: ...
