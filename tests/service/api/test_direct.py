"""Requests for one generation over a real connection: answered without the app, and otherwise as it would."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple
from weakref import ref

import pytest
import uvicorn
from brigantine import Media
from brigantine.api import ACCESS, Entry, Host
from brigantine.api.direct import DirectProtocol
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from tests.service.toys import plugin_of, until

GENERATE = "/v1/models/tiny/generate"
SAME = {"id", "created", "stages_ms"}
"""What differs between two answers to one request."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.said["error"]["code"]


class Client:
    """One connection, byte by byte if need be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split()[1]), headers, body)

    async def ask(self, *args: Any, **options: Any) -> Answer:
        self.writer.write(request(*args, **options))
        return await self.answer()


def request(
    body: Any = None, path: str = GENERATE, headers: str = "", raw: bytes | None = None, version: str = "1.1"
) -> bytes:
    """A request as bytes."""
    content = json.dumps(body or {}).encode() if raw is None else raw
    head = f"POST {path} HTTP/{version}\r\nhost: here\r\ncontent-length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


class Site:
    """A server of uvicorn's in this loop, what its app was asked, and its connections."""

    def __init__(self, host: Host) -> None:
        self.entry = Entry(Starlette(), host)  # type: ignore[arg-type]
        self.asked: list[str] = []
        self.clients: list[Client] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        http: Any = partial(DirectProtocol, self.entry)
        config = uvicorn.Config(self._app, http=http, lifespan="off", interface="asgi3", log_config=None)
        self.server = uvicorn.Server(config)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await self.entry(scope, receive, send)

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection(*self._listener.getsockname())))
        return self.clients[-1]

    async def end(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
            with suppress(ConnectionError):
                await client.writer.wait_closed()
        self.server.should_exit = self.server.force_exit = True

    async def run(self) -> None:
        await self.server.serve([self._listener])


@asynccontextmanager
async def site(host: Host) -> AsyncIterator[Site]:
    served = Site(host)
    task = asyncio.create_task(served.run())
    await until(lambda: served.server.started)
    try:
        yield served
    finally:
        await served.end()
        await task


def on_a_site(test: Callable[[Site], Coroutine[Any, Any, None]]) -> Callable[[Host], None]:
    """The test gets a server of this host."""

    def run(host: Host) -> None:
        async def scenario() -> None:
            async with site(host) as served:
                await test(served)

        asyncio.run(asyncio.wait_for(scenario(), 60))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def held(host: Host) -> int:
    assert host.engine is not None
    return host.engine.served("tiny").scheduler.held


@contextmanager
def gate(host: Host) -> Iterator[None]:
    """Within this, nothing is made."""
    assert host.engine is not None
    plugin, opened = plugin_of(host.engine), threading.Event()
    run = plugin.generate
    plugin.generate = lambda batch: run(batch) if opened.wait(30) else {}
    try:
        yield
    finally:
        opened.set()
        plugin.generate = run


async def through_the_app(client: Client, sent: bytes) -> Answer:
    """The same request, in two packets: its body comes when the app has been asked already."""
    head, end, body = sent.partition(b"\r\n\r\n")
    client.writer.write(head + end)
    await client.writer.drain()
    await asyncio.sleep(0.05)
    client.writer.write(body)
    return await client.answer()


@pytest.mark.parametrize(
    "sent",
    [
        request({"seed": 7, "n": 3}),
        request({"seed": 7}, headers="accept: image/png\r\nx-request-id: mine\r\n"),
        request({"seed": 7, "prompt": "x", "model": "tiny"}, "/v1/images/generations"),
        request({"seed": "x"}),
        request({"sede": 7}),
        request({"n": 3}, headers="accept: image/png\r\n"),
        request(headers="accept: audio/wav\r\n"),
        request(headers="x-request-timeout-ms: soon\r\n"),
        request(raw=b"{"),
        request(raw=b"[]"),
        request(path="/v1/models/nine/generate"),
        request(path="/v1/smells/generations"),
        request({"model": "tiny", "output_format": "wav"}, "/v1/images/generations"),
    ],
    ids=lambda sent: sent[5:].decode().replace("\r\n", " "),
)
def test_the_answer_is_the_apps(host: Host, sent: bytes):
    async def both() -> tuple[Answer, Answer]:
        async with site(host) as served:
            client = await served.connect()
            client.writer.write(sent)
            direct = await client.answer()
            assert not served.asked
            indirect = await through_the_app(client, sent)
            assert len(served.asked) == 1
            return direct, indirect

    direct, indirect = asyncio.run(asyncio.wait_for(both(), 60))
    assert direct.status == indirect.status
    assert direct.headers.keys() == indirect.headers.keys()
    assert direct.headers["content-type"] == indirect.headers["content-type"]
    if direct.headers["content-type"] == "application/json":
        first, second = direct.said, indirect.said
        assert {k: v for k, v in first.items() if k not in SAME} == {
            k: v for k, v in second.items() if k not in SAME
        }
    else:
        assert direct.body == indirect.body
        assert direct.headers["x-request-id"] == indirect.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(headers="accept: text/event-stream\r\n"), 200),
        (request({"prompt": "x"}, "/v1/completions"), 404),
        (b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n", 200),
        (request(path="/nowhere"), 404),
        (request(raw=b" " * 2_000_000), 413),
        (request(headers="expect: 100-continue\r\n"), 200),
    ],
    ids=["stream", "completions", "get", "no path", "too large", "expect"],
)
def test_all_else_is_for_the_app(host: Host, sent: bytes, status: int):
    async def asked() -> list[str]:
        async with site(host) as served:
            client = await served.connect()
            client.writer.write(sent)
            line = await client.reader.readline()
            if b" 100 " in line:
                line = (await client.reader.readline()) and await client.reader.readline()
            assert int(line.split()[1]) == status
            return served.asked

    assert len(asyncio.run(asyncio.wait_for(asked(), 60))) == 1


@on_a_site
async def test_one_connection_has_its_answers_in_order(served: Site):
    client = await served.connect()
    alone = [(await client.ask({"seed": seed})).said["data"] for seed in range(5)]

    client.writer.write(b"".join(request({"seed": seed}) for seed in range(5)))
    assert [(await client.answer()).said["data"] for _ in range(5)] == alone


@on_a_site
async def test_many_connections_have_their_own_answers(served: Site):
    async def asks(seed: int) -> None:
        client = await served.connect()
        for turn in range(5):
            answer = await client.ask({"seed": 10 * seed + turn})
            assert (answer.status, answer.said["data"][0]["seed"]) == (200, 10 * seed + turn)

    await asyncio.gather(*map(asks, range(40)))
    assert not served.asked


@on_a_site
async def test_a_connection_is_closed_when_either_side_says_so(served: Site):
    for sent in (request(headers="connection: close\r\n"), request(version="1.0")):
        client = await served.connect()
        client.writer.write(sent)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await asyncio.wait_for(client.reader.read(), 2) == b"", "it is closed at once"


@pytest.mark.parametrize("whose", ["uvicorn's", "ours"])
def test_what_was_begun_before_a_stop_is_answered_and_the_connection_closed(host: Host, whose: str):
    async def scenario() -> None:
        async with site(host) as served:
            client = await served.connect()
            with gate(host):
                client.writer.write(request())
                await until(lambda: held(host) == 1)
                served.server.should_exit, host.stopping = whose == "uvicorn's", whose == "ours"
                await asyncio.sleep(0.3)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await asyncio.wait_for(client.reader.read(), 2) == b"", "it is closed at once"

    asyncio.run(asyncio.wait_for(scenario(), 60))


@on_a_site
async def test_while_it_stops_the_app_says_so(served: Site):
    client = await served.connect()
    served.entry._host.stopping = True  # type: ignore[misc]
    answer = await client.ask()
    assert (answer.status, answer.headers["connection"]) == (503, "close")


def test_a_hang_up_takes_it_back_at_once(host: Host, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, ACCESS)

    async def scenario() -> None:
        async with site(host) as served:
            with gate(host):
                client, other = await served.connect(), await served.connect()
                client.writer.write(request({"n": 5}))
                other.writer.write(request({"n": 5}))
                await until(lambda: held(host) == 10)
                client.writer.transport.abort()
                await asyncio.sleep(0.1)
                assert held(host) == 5
            assert (await other.answer()).status == 200

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert host.access is not None
    host.access.flush()
    statuses = [
        line.split(f"{GENERATE} ")[1].split()[0] for line in caplog.text.splitlines() if GENERATE in line
    ]
    assert statuses == ["499", "200"]


def test_a_late_answer_is_504(host: Host):
    async def scenario() -> None:
        async with site(host) as served:
            client = await served.connect()
            with gate(host):
                answer = await client.ask(headers="x-request-timeout-ms: 50\r\n")
                assert (answer.status, answer.code) == (504, "deadline_exceeded")
            assert (await client.ask()).status == 200, "the connection is as good as before"
            assert not served.asked

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_what_a_plugin_raises_or_a_type_that_would_forge_a_header_is_500(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def scenario() -> None:
        async with site(host) as served:
            client = await served.connect()
            plugin = plugin_of(host.engine)  # type: ignore[arg-type]
            monkeypatch.setattr(plugin, "render", lambda *args: Media("image/png\r\nx-forged: 1", b"x"))
            forged = await client.ask(headers="accept: image/png\r\n")
            assert (forged.status, forged.code) == (500, "internal_error")
            assert "x-forged" not in forged.headers
            monkeypatch.setattr(plugin, "render", lambda *args: 1 / 0)
            raised = await client.ask(headers="x-request-id: mine\r\n")
            assert (raised.status, raised.code) == (500, "generation_failed")
            assert not served.asked

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert "mine" in caplog.text and "ZeroDivisionError" in caplog.text


@on_a_site
async def test_who_reads_nothing_is_left_to_the_app_which_waits(served: Site):
    client = await served.connect()
    transport: Any = client.writer.transport
    transport.pause_reading()
    counts = served.server.server_state
    while not served.asked:
        client.writer.write(request({"n": 64}))
        before = counts.total_requests
        await until(lambda: bool(served.asked) or counts.total_requests > before)  # noqa: B023
    transport.resume_reading()
    for _ in range(counts.total_requests + 1):
        assert len((await client.answer()).said["data"]) == 64


@on_a_site
async def test_nothing_of_a_connection_waits_for_the_garbage_collector(served: Site):
    gc.collect()
    gc.disable()
    try:
        gone: list[ref[Any]] = []
        for turn in range(3):
            client = await served.connect()
            await client.ask({"seed": turn})
            [protocol] = served.server.server_state.connections
            gone += [ref(protocol), ref(protocol.cycle)]  # type: ignore[union-attr]
            del protocol
            client.writer.close()
            await until(lambda: not served.server.server_state.connections)
        await asyncio.sleep(0.05)
        assert [one() for one in gone] == [None] * 6
    finally:
        gc.enable()
