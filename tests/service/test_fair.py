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
from brigantine import fair
from brigantine.fair import FairLoop, loops
from brigantine.shared import Shared
from brigantine.shares import Shares

from tests.service.test_shares import say, worker
from tests.service.toys import until


class Echo(asyncio.Protocol):
    """As uvicorn's protocol it knows all connections that are open."""

    connections: set["Echo"]
    told = False
    """Whether it is to end when it can."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)

    def shutdown(self) -> None:
        self.told = True


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


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How often a connection was left to another worker."""
    waits: list[float] = []
    soon = FairLoop.call_later

    def watched(loop: FairLoop, delay: float, *args: object, **options: object) -> asyncio.TimerHandle:
        if delay == fair._WAIT_S:
            waits.append(delay)
        return soon(loop, delay, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FairLoop, "call_later", watched, raising=False)
    return waits


def test_it_leaves_connections_to_one_with_fewer_but_does_not_wait_for_it_each_time(
    tmp_path: Path, waits: list[float]
):
    async def scenario(_: asyncio.AbstractServer, echoed: Echoed) -> None:
        with worker(tmp_path / "connections") as other:
            say(other, 1)
            for _again in range(3):
                await echoed()
            assert len(waits) == 0
            for _again in range(16):  # the other one has one, and does nothing
                await echoed()
            assert len(waits) == 5
            await echoed()
            await echoed()
            assert len(waits) == 10
            say(other, 30)
            for _again in range(3):
                await echoed()
            assert len(waits) == 10

    serve(tmp_path / "connections", scenario)


def test_it_waits_once_for_a_dead_one(tmp_path: Path, waits: list[float]):
    async def scenario(_: asyncio.AbstractServer, echoed: Echoed) -> None:
        with worker(tmp_path / "connections") as other:
            say(other, 0)
            other.kill()
            other.wait()
            for _again in range(40):
                await echoed()
            assert len(waits) == 5

    serve(tmp_path / "connections", scenario)


def test_while_another_takes_what_it_leaves_it_goes_on_leaving(tmp_path: Path, waits: list[float]):
    listener = socket.create_server(("127.0.0.1", 0))

    async def scenario(_: asyncio.AbstractServer, echoed: Echoed) -> None:
        for _again in range(3):
            await echoed()
        with worker(tmp_path / "connections") as other:
            say(other, 0)
            for _again in range(8):
                before = len(waits)
                with socket.create_connection(listener.getsockname()):
                    await until(lambda before=before: len(waits) > before)
                    taken, _address = listener.accept()  # as the other one would
                    taken.close()
                await asyncio.sleep(20 * fair._WAIT_S)
        assert len(Echo.connections) == 3

    serve(tmp_path / "connections", scenario, listener)


def test_one_that_comes_while_it_closes_is_told_so(tmp_path: Path):
    listener = socket.create_server(("127.0.0.1", 0))

    async def scenario(server: asyncio.AbstractServer, _: Echoed) -> None:
        one = cast(fair._Server, server)
        with socket.create_connection(listener.getsockname()):
            one._take()
            one.close()
            await asyncio.gather(*one._greeted)
            assert [one.told for one in Echo.connections] == [True]

    serve(tmp_path / "connections", scenario, listener)


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


def anonymous(kind: int) -> ssl.SSLContext:
    """TLS without a certificate."""
    context = ssl.SSLContext(kind)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH:@SECLEVEL=0")
    return context


def test_with_tls_it_counts_and_a_client_without_harms_nobody(tmp_path: Path):
    Echo.connections = set()
    listener = socket.create_server(("127.0.0.1", 0))

    async def main() -> None:
        context = anonymous(ssl.PROTOCOL_TLS_SERVER)
        server = await asyncio.get_running_loop().create_server(Echo, sock=listener, ssl=context)
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()  # until it hangs up
            writer.close()
        assert not Echo.connections
        reader, writer = await asyncio.open_connection(
            *listener.getsockname(), ssl=anonymous(ssl.PROTOCOL_TLS_CLIENT)
        )
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
        with worker(tmp_path / "connections") as other:
            say(other, 100)
            with socket.create_connection(listener.getsockname()):
                await until(lambda: say(other, 100) == 1)  # told with the next one
        server.close()
        writer.close()
        await writer.wait_closed()

    run(tmp_path / "connections", main())
    listener.close()


def test_what_is_not_handed_a_socket_is_uvloops(tmp_path: Path):
    async def main() -> None:
        Echo.connections = set()
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        assert type(server).__module__ == "uvloop.loop"
        server.close()

    run(tmp_path / "connections", main())


def test_without_a_service_there_are_no_others_and_the_loop_is_uvloops(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("_BRIGANTINE_SHARED_DIR", raising=False)

    assert loops() is uvloop.new_event_loop


def test_a_worker_of_a_service_has_others_beside_it(shared: Shared):
    loop = loops()()

    assert isinstance(loop, FairLoop)
    assert shared.connections.exists()
    loop.close()
