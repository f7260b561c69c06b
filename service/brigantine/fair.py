"""Fair: a share of the connections for each of the workers that take them from one socket.

When a client opens dozens at once, the first worker to wake is back for the next one before the others are awake, and
has all of them; the others have nothing to do for as long as these last. Here a worker takes none while another one has
clearly fewer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

from .shared import Shared
from .shares import Shares

__all__ = ["FairLoop", "loops"]

log = logging.getLogger(__name__)

_WAIT_S = 0.001
_MOST_WAITS = 5
"""How often a worker leaves a connection to one that has fewer; that one may be busy, or dead."""
_UNASKED = 16
"""How many it then takes without waiting for that one again."""
_REST_S = 1.0
"""How long no connection is taken where there is no room for one."""


class FairLoop(uvloop.Loop):
    """uvloop's, but for how uvicorn's server takes connections from the socket that is handed to it.

    Args:
        shares: what the workers have.
    """

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        self._shares = shares

    async def create_server(
        self,
        protocol_factory: Any,
        *args: Any,
        sock: socket.socket | None = None,
        ssl: Any = None,
        backlog: int = 100,
        **options: Any,
    ) -> Any:
        """As asyncio's; one with `sock` is taken for uvicorn's."""
        if sock is None:
            return await super().create_server(protocol_factory, *args, ssl=ssl, backlog=backlog, **options)
        server = _Server(self, self._shares, sock, protocol_factory, ssl)
        server.start(backlog)
        return server


def loops(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes the event loop of a worker, as uvicorn asks for it."""
    shared = Shared.found()
    return uvloop.new_event_loop if shared is None else partial(FairLoop, Shares(shared.connections))


class _Server(asyncio.AbstractServer):
    """Takes connections from one socket until it is closed; what becomes of them is their protocols' affair."""

    def __init__(
        self,
        loop: FairLoop,
        shares: Shares,
        listener: socket.socket,
        protocol_factory: Callable[[], Any],
        ssl: Any,
    ) -> None:
        self._loop = loop
        self._shares = shares
        self._listener = listener
        self._protocol_factory = protocol_factory
        self._ssl = ssl
        self._connections: set[Any] = set()
        self._greeted: set[asyncio.Task[None]] = set()
        self._waits = 0
        self._closed = False

    def start(self, backlog: int) -> None:
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._tell()
        self._loop.add_reader(self._listener, self._take)

    def close(self) -> None:
        """Take no more."""
        if not self._closed:
            self._closed = True
            self._shares.leave()
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """There is nothing to wait for."""

    def _take(self) -> None:
        """Take one connection, unless it is rather another worker's."""
        if self._leaves_it():
            self._rest(_WAIT_S)
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            self._waits = 0  # another worker was quicker, or the client has gone
        except OSError as error:
            log.error("no connection can be taken for %g s: %s", _REST_S, error)
            self._shares.leave()
            self._rest(_REST_S)
        else:
            connection.setblocking(False)
            task = self._loop.create_task(self._greet(connection))
            self._greeted.add(task)
            task.add_done_callback(self._greeted.discard)

    def _leaves_it(self) -> bool:
        count = self._tell()
        if count <= self._shares.fewest() + 1 + count // 16:
            self._waits = 0
            return False
        self._waits += 1
        if self._waits == _MOST_WAITS + 1:
            self._shares.sweep()
        elif self._waits == _MOST_WAITS + _UNASKED:
            self._waits = 0
        return 0 < self._waits <= _MOST_WAITS

    def _tell(self) -> int:
        count = len(self._connections) + len(self._greeted)
        self._shares.tell(count)
        return count

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._take)
            self._take()

    async def _greet(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._ssl)
        except OSError as error:  # as a client that speaks no TLS
            log.debug("a connection came to nothing: %s", error)
            connection.close()
        if self._closed:  # uvicorn has told those that it knew
            for one in list(self._connections):
                one.shutdown()

    def _protocol(self) -> Any:
        """uvicorn's, which knows all connections that are open; with TLS the loop only shows a layer of its own."""
        protocol = self._protocol_factory()
        self._connections = protocol.connections
        return protocol
