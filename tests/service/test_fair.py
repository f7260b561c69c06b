"""A worker takes its share of the connections, and more where nobody else does."""

import asyncio
import errno
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from brigantine.fair import FairLoop, loops
from brigantine.shared import Shared
from brigantine.shares import Shares

from tests.service.test_shares import say, worker


class Echo(asyncio.Protocol):
    """As uvicorn's protocol it knows all connections that are open."""

    connections: set["Echo"]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)


Address = tuple[str, int]
Echoed = Callable[[], Awaitable[None]]
"""Opens one more connection, waits for an answer, and keeps it open until the end."""
Scenario = Callable[[asyncio.AbstractServer, Echoed], Awaitable[None]]


def serve(file: Path, scenario: Scenario, listener: socket.socket | None = None) -> None:
    """Run it beside a server of echoes."""
    Echo.connections = set()
    listener = listener or socket.create_server(("127.0.0.1", 0))

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, sock=listener)
        writers: list[asyncio.StreamWriter] = []

        async def echoed() -> None:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writers.append(writer)
            writer.write(b"here")
            assert await reader.readexactly(4) == b"here"

        try:
            await scenario(server, echoed)
        finally:
            server.close()
            await server.wait_closed()
            for writer in writers:
                writer.close()
                await writer.wait_closed()

    run(file, main())
    listener.close()


def run(file: Path, main: Coroutine[Any, Any, None]) -> None:
    loop = FairLoop(Shares(file))
    try:
        loop.run_until_complete(asyncio.wait_for(main, 60))
    finally:
        loop.close()


def test_alone_it_takes_all_and_sends_without_delay(tmp_path: Path):
    async def scenario(_: asyncio.AbstractServer, echoed: Echoed) -> None:
        await asyncio.gather(*(echoed() for _ in range(50)))
        assert len(Echo.connections) == 50
        for one in Echo.connections:
            taken = one.transport.get_extra_info("socket")
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    serve(tmp_path / "connections", scenario)


def test_it_tells_the_others_what_it_has(tmp_path: Path):
    async def scenario(server: asyncio.AbstractServer, echoed: Echoed) -> None:
        with worker(tmp_path / "connections") as other:
            assert say(other, 100) == 0
            for _ in range(3):
                await echoed()
            # What it had when it took the last one.
            assert say(other, 100) == 2
            server.close()
            assert say(other, 100) == math.inf

    serve(tmp_path / "connections", scenario)


def test_it_leaves_a_connection_to_one_with_fewer_but_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []
    soon = FairLoop.call_later

    def watched(loop: FairLoop, delay: float, *args: object, **options: object) -> asyncio.TimerHandle:
        if delay == 0.001:
            waits.append(delay)
        return soon(loop, delay, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FairLoop, "call_later", watched, raising=False)

    async def scenario(_: asyncio.AbstractServer, echoed: Echoed) -> None:
        with worker(tmp_path / "connections") as other:
            say(other, 1)
            for _again in range(3):
                await echoed()
            assert waits == []
            await echoed()  # it has three, the other one has one
            assert len(waits) == 5
            say(other, 3)
            await echoed()
            assert len(waits) == 5
            say(other, 0)
            other.kill()
            other.wait()
            for _again in range(3):
                await echoed()
            assert len(waits) == 10  # then it is known to be dead

    serve(tmp_path / "connections", scenario)


def test_without_room_for_a_connection_it_rests_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("brigantine.fair._REST_S", 0.05)
    full = [True]

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, Address]:
            if full[0]:
                full[0] = False
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    listener = Listener()
    listener.bind(("127.0.0.1", 0))

    async def scenario(_: asyncio.AbstractServer, echoed: Echoed) -> None:
        await echoed()

    serve(tmp_path / "connections", scenario, listener)
    assert "no connection can be taken for 0.05 s: [Errno 24] Too many open files" in caplog.text


def test_a_client_that_speaks_no_tls_harms_nobody(tmp_path: Path):
    Echo.connections = set()
    listener = socket.create_server(("127.0.0.1", 0))

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = await asyncio.get_running_loop().create_server(Echo, sock=listener, ssl=context)
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()  # until it hangs up
            writer.close()
        server.close()
        assert not Echo.connections

    run(tmp_path / "connections", main())
    listener.close()


def test_what_is_not_handed_a_socket_is_uvloops(tmp_path: Path):
    async def main() -> None:
        Echo.connections = set()
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        assert type(server).__module__ == "uvloop.loop"
        server.close()

    run(tmp_path / "connections", main())


def test_only_a_worker_of_a_service_has_others_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("_BRIGANTINE_SHARED_DIR", raising=False)
    assert loops() is uvloop.new_event_loop

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = Shared.create()
    monkeypatch.setenv("_BRIGANTINE_SHARED_DIR", str(shared.folder))
    loop = loops()()
    assert isinstance(loop, FairLoop)
    loop.close()
