"""The direct way: uvicorn's HTTP protocol, which sees to it by itself when one generation is all that is asked for.

Such a request, once it has come as a whole, is planned and begun in the same turn of the event loop, and answered in
that in which it is made. It needs no task, no channel for its body and none for its answer, which took an eighth of the
time of a small image (`benchmarks/RESULTS.md`), nor is its head parsed where the same one has come before. All other
requests go to the app, as uvicorn has it.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any, cast

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from ..engine import GONE, Caller, Making
from .entry import Entry, Exchange
from .heads import Head
from .http import as_object, as_ours, error_response
from .plan import Plan

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
        self._within = False  # the parser waits for the rest of a request
        self._held: tuple[RequestResponseCycle, Any] | None = None
        # Stands for the requests that were not parsed, one after the other.
        self._own: RequestResponseCycle | None = None
        self._making: Making | None = None
        self._lost = False
        self._idle_since_s = math.inf

    def data_received(self, data: bytes) -> None:
        is_new = not (self._within or (self.cycle and not self.cycle.response_complete))
        if is_new and self._repeats(data):
            return
        self._receiving = True
        try:
            super().data_received(data)
        finally:
            self._receiving = False
            held, self._held = self._held, None
            if held is not None and not self._begins(*held, data if is_new else b""):
                super()._start_asgi_task(*held)

    def on_message_begin(self) -> None:
        self._within = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._within = cast(Any, self.parser).should_upgrade()  # what follows is not HTTP

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        if self._making is not None:
            self._making.done.cancel()

    def shutdown(self) -> None:
        """As uvicorn's, but for a connection that was only just taken: closed with its request unread it is reset."""
        if not (self.cycle or self.transport.is_closing()):
            self.loop.call_later(_GRACE_S, super().shutdown)
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """As uvicorn's, but with one timer, which looks when the connection was last used, not one for each answer."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            super().timeout_keep_alive_handler()
        elif left_s < math.inf:  # else it is in use
            self._look_in(left_s)

    def _look_in(self, after_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after_s, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since_s = math.inf

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Called as soon as the head of a request has come; most have their body in the same packet."""
        if self._receiving:
            self._held = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _repeats(self, data: bytes) -> bool:
        """Begin to answer a request with a head that has come before, unless it has to be parsed."""
        found = self._entry.known(data)
        if found is None or self.limit_concurrency is not None or not self._is_read:
            return False
        self._own = self._own or self._stand_in()
        self._unset_keepalive_if_required()
        return self._makes(self._own, *found)

    def _stand_in(self) -> RequestResponseCycle:
        """What uvicorn has for each request that it parses."""
        return RequestResponseCycle(
            scope=cast(Any, {}),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=_nothing,
        )

    def _begins(self, cycle: RequestResponseCycle, app: Any, data: bytes) -> bool:
        """Begin to answer a request that was parsed, unless the app has to.

        Args:
            cycle: the request.
            app: what uvicorn has answer it.
            data: the packet, if the request begins it.
        """
        if (
            cycle.more_body
            or cycle.waiting_for_100_continue
            or not self._is_read
            or app is not self.app  # uvicorn refuses it
        ):
            return False
        body = bytes(cycle.body)
        head = self._entry.head(cast(Any, cycle.scope), len(body))
        if head is None or not self._makes(cycle, head, body):
            return False
        if data and cycle.keep_alive:
            self._entry.learn(data, head, len(body))
        return True

    @property
    def _is_read(self) -> bool:
        """Whether there is somebody who reads what was answered before."""
        return not (self.flow.write_paused or self.transport.is_closing())

    def _makes(self, cycle: RequestResponseCycle, head: Head, body: bytes) -> bool:
        """Begin what is asked for, or say what is wrong with it. False where it is no generation: nothing was done."""
        exchange = self._entry.exchange(head)
        try:
            plan = head.draft(as_object(body), len(body))
            if isinstance(plan, Response):
                return False
            making = plan.begin(Caller(head.timeout_s, len(body)))
        except BaseException as error:  # a plugin's validation may raise anything
            self._take(cycle)
            self._answer(cycle, exchange, error_response(as_ours(error, exchange.scope)))
            return True
        self._take(cycle)
        self._making = making
        making.then = partial(self._made, cycle, exchange, plan)
        return True

    def _take(self, cycle: RequestResponseCycle) -> None:
        """This request is ours."""
        if cycle is self._own:
            cycle.response_complete = False
            self.cycle = cycle
            return
        cycle.body = bytearray()  # the cycle lets go of it, and of this connection, which holds it
        cycle.on_response = _nothing
        self.flow.resume_reading()  # a hang-up has to be read, too

    def _made(
        self,
        cycle: RequestResponseCycle,
        exchange: Exchange,
        plan: Plan,
        making: Making,
    ) -> None:
        self._making = None
        if self._lost or self.transport.is_closing() or making.done.cancelled():
            exchange.end(GONE)
            return
        self._answer(cycle, exchange, _response(exchange, plan, making))

    def _answer(self, cycle: RequestResponseCycle, exchange: Exchange, response: Response) -> None:
        """Write all of the answer, as the cycle would."""
        cycle.keep_alive = cycle.keep_alive and not exchange.is_last
        headers = [
            *self.server_state.default_headers,
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


def _response(exchange: Exchange, plan: Plan, making: Making) -> Response:
    """The answer, of what is done."""
    error = making.done.exception()
    if error is not None:  # which is not raised here: it would remember this frame, and so all that we have
        return error_response(as_ours(error, exchange.scope))
    try:
        return plan.answer(making.generation())
    except Exception as error:
        return error_response(as_ours(error, exchange.scope))


def _nothing() -> None: ...
