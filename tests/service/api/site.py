"""A server of uvicorn's that speaks by our protocol, and clients that say it byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import uvicorn
from brigantine.api import Entry, Host
from brigantine.api.direct import DirectProtocol
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from tests.service.toys import plugin_of, until

GENERATE = "/v1/models/tiny/generate"


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


LARGE = json.dumps({"seed": 7}).encode() + b" " * 100_000
"""A body of more than a connection takes at a time."""
Scenario = Callable[[Site], Coroutine[Any, Any, Any]]
Serve = Callable[[Scenario], Any]


@asynccontextmanager
async def site(host: Host) -> AsyncIterator[Site]:
    """A server of this host, until all that asks it is done. No callback of its loop may fail."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    served = Site(host)
    task = asyncio.create_task(served.run())
    await until(lambda: served.server.started)
    try:
        yield served
    finally:
        await served.end()
        await task
    assert not faults


def on_a_site(scenario: Scenario) -> Callable[[Callable[[Scenario], Any]], None]:
    """A test that is a coroutine, on the server of the fixture `serve`."""

    def run(serve: Callable[[Scenario], Any]) -> None:
        serve(scenario)

    run.__name__, run.__doc__ = scenario.__name__, scenario.__doc__
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


def flying(host: Host) -> float:
    """What is shown as taken and not yet answered."""
    assert host.engine is not None
    text = host.engine.metrics.exposition()[0].decode()
    found = re.search(r'in_flight{model="tiny"} (\S+)', text)
    assert found is not None
    return float(found[1])


async def through_the_app(client: Client, sent: bytes) -> Answer:
    """The same request, in two packets: its body comes when the app has been asked already."""
    head, end, body = sent.partition(b"\r\n\r\n")
    client.writer.write(head + end)
    await client.writer.drain()
    await asyncio.sleep(0.05)
    client.writer.write(body)
    return await client.answer()
