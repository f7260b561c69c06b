"""The doorman: answers for a service of which no worker answers.

Before the first worker has loaded its models, after the last one has closed, and while the only one is replaced, the
kernel would take connections that nobody reads: a client would hang. The supervisor, which opened the socket and lives
as long as the service does, answers them instead: `/livez` with 200, anything else with 503 and the reason.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress
from random import getrandbits

import orjson
from async_timeout import timeout

from .errors import NotReady
from .shared import Shared

__all__ = ["Doorman"]

_MOST_WORKERS = 4096
_PATIENCE_S = 5.0
"""How long a client may take for its request."""
_BACKLOG = 2048
_LEAVE_S = 1.0
"""How long it may take to leave the socket."""


class Doorman:
    """A thread of the supervisor.

    Args:
        listener: the socket that the workers share.
        shared: says whether one of them answers.
        waits_for_others: whether clients wait when a worker has answered before, and another one comes in its place.
        silent: whether it only looks whether a worker answers: it does not speak TLS.
    """

    def __init__(
        self, listener: int, shared: Shared, waits_for_others: bool = False, silent: bool = False
    ) -> None:
        self.opened = False
        """Whether a worker has ever answered."""
        self._stopping = False
        self._listener = listener
        self._shared = shared
        self._waits_for_others = waits_for_others
        self._silent = silent
        self._door: socket.socket | None = None
        self._closed, self._left = False, threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ear = shared.listen()
        threading.Thread(target=self._run, name="doorman", daemon=True).start()

    def stop(self) -> None:
        """The service stops."""
        self._stopping = True

    def close(self) -> None:
        """Leave the socket: one that is shut down would be found ready, with nobody there, again and again."""
        self._loop.call_soon_threadsafe(self._leave)
        self._left.wait(_LEAVE_S)

    @property
    def why(self) -> str:
        """Why no worker answers."""
        if self._stopping:
            return "the service is stopping"
        if self.opened:
            return "the service has lost its workers; others are loading its models"
        return "the service is loading its models"

    def _run(self) -> None:
        with suppress(OSError):  # the folder has been removed
            self._loop.run_until_complete(self._watch())

    def _leave(self) -> None:
        self._closed = True
        if self._door is not None:
            self._loop.remove_reader(self._door)
        self._left.set()

    async def _watch(self) -> None:
        self._some, self._none = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().add_reader(self._ear, self._hear)
        while True:
            if not self._silent and (self._stopping or not (self.opened and self._waits_for_others)):
                with self._shared.standing_in():
                    await self._stand_in()
            await self._some.wait()
            await self._none.wait()

    def _hear(self) -> None:
        """A worker answers, or the last one that did has ended."""
        if os.read(self._ear, _MOST_WORKERS):
            self.opened = True
            self._none.clear()
            self._some.set()
            return
        loop, before = asyncio.get_running_loop(), self._ear
        loop.remove_reader(before)
        self._ear = self._shared.listen()
        loop.add_reader(self._ear, self._hear)
        os.close(before)
        self._some.clear()
        self._none.set()

    async def _stand_in(self) -> None:
        """Answer until a worker does."""
        if self._some.is_set() or self._closed:
            return
        self._door = door = socket.socket(fileno=os.dup(self._listener))
        door.setblocking(False)
        server = await asyncio.start_server(self._serve, sock=door, backlog=_BACKLOG)
        await self._some.wait()
        self._loop.remove_reader(door)
        await asyncio.sleep(0)  # asyncio forgets those that it has accepted just before it closes
        self._door = None
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                writer.write_eof()
                while await reader.read(1 << 16):  # its body; unread, it would have the answer thrown away
                    pass
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass  # no request, or a client that has gone
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        method, path, *_ = [*head.split(b"\r\n", 1)[0].split(b" "), b"", b""]
        if path.split(b"?")[0] == b"/livez":
            status, retry, body = "200 OK", "", orjson.dumps({"status": "alive"})
        else:
            status, retry = "503 Service Unavailable", f"retry-after: {NotReady.retry_after_s:.0f}\r\n"
            message = f"{self.why}; ask another replica, or try again in a second"
            error = {"message": message, "type": "server_error", "param": None, "code": NotReady.code}
            body = orjson.dumps({"error": error})
        lines = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{retry}"
            f"connection: close\r\nx-request-id: req_{getrandbits(128):032x}\r\n\r\n"
        )
        return lines.encode() + (b"" if method == b"HEAD" else body)
