"""Fair: a share of the connections for each of the workers that take them from one socket.

An event loop takes every connection that waits as soon as it hears of one. So when a client opens dozens at once, the
first worker to hear has all of them, and the others have nothing to do for as long as they last. Here a worker takes
one at a time, and none while another one has clearly fewer.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sized
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
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REST_S = 1.0
"""How long no connection is taken where there is no room for one."""


class FairLoop(uvloop.Loop):
    """uvloop's, but for how connections are taken from a socket that is handed to it.

    Args:
        shares: what the workers have.
    """

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        self._shares = shares

    async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        """As asyncio's; `sock` may be shared with other processes."""
        listener: socket.socket | None = options.get("sock")
        if listener is None:
            return await super().create_server(protocol_factory, *args, **options)
        server = _Server(self, self._shares, listener, protocol_factory, options.get("ssl"))
        server.start(options.get("backlog", 100))
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
        self._connections: Sized = ()
        self._greeted: set[asyncio.Task[None]] = set()
        self._waits = 0
        self._closed = False

    def start(self, backlog: int) -> None:
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._tell()
        self._listen()

    def close(self) -> None:
        """Take no more."""
        if not self._closed:
            self._closed = True
            self._shares.leave()
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """There is nothing to wait for."""

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._take)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._listen)

    def _tell(self) -> int:
        count = len(self._connections) + len(self._greeted)
        self._shares.tell(count)
        return count

    def _take(self) -> None:
        """Take one connection, unless it is rather another worker's turn."""
        count = self._tell()
        if count > self._shares.fewest() + 1 + count // 16:
            if self._waits < _MOST_WAITS:
                self._waits += 1
                self._rest(_WAIT_S)
                return
            self._shares.sweep()
        self._waits = 0
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client has gone
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            log.error("no connection can be taken for %g s: %s", _REST_S, error)
            self._rest(_REST_S)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._greet(connection))
        self._greeted.add(task)
        task.add_done_callback(self._greeted.discard)

    async def _greet(self, connection: socket.socket) -> None:
        try:
            _, protocol = await self._loop.connect_accepted_socket(
                self._protocol_factory, connection, ssl=self._ssl
            )
        except OSError as error:  # as a client that speaks no TLS
            log.debug("a connection came to nothing: %s", error)
            connection.close()
        else:
            self._connections = protocol.connections  # all that uvicorn has
