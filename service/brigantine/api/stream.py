"""A generation that is shown while it is made, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html. The status line waits for the first part, so that what
goes wrong before it has its own status; what goes wrong later is the last event. What comes in quick succession, or has
piled up while a client was slow, goes out in one piece. A client that does not read at all has hung up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import orjson
from async_timeout import timeout
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..engine import Caller, Generation, Served
from ..errors import BadParams, BrigantineError
from ..media import Media
from .http import Watch, as_ours, engine_of, patience_s

__all__ = ["EVENTS", "Orders", "Script", "Stream", "event", "run"]

EVENTS = "text/event-stream"
_STALLED_S = 5.0
"""How long a client may leave what was sent unread, once all buffers on the way to it are full."""
_SLICE = 1 << 15
_HEADERS = [
    (b"content-type", EVENTS.encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would keep it until it is a whole answer
]


class Script(Protocol):
    """How a route says what happens. It is asked once for all that does, of each row in the order of that."""

    def part(self, index: int, media: Media) -> bytes:
        """What follows what was shown of the row of this index before."""
        ...

    def whole(self, index: int, media: Media, shown: int) -> bytes:
        """The row is done: all of it, of which so many bytes were shown before."""
        ...

    def error(self, error: BrigantineError) -> bytes:
        """Nothing follows, because of this."""
        ...

    def end(self) -> bytes:
        """All rows are done."""
        ...


@dataclass(frozen=True)
class Orders:
    """What one HTTP request asks of a model: one generation or several."""

    served: Served
    bodies: Sequence[Mapping[str, Any]]
    """The plugin's Params with `n` and `seed`, for each."""
    size: int
    """The bytes that the HTTP request had."""
    rows: int = 1
    """How many each of several makes: the rows are counted through."""
    media_type: str | None = None
    also: Sequence[str] = ()
    """Fields that the route has taken out of the bodies."""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """What fields of the bodies are called in the request, where that is not the same."""


def event(data: object, name: str = "") -> bytes:
    """One event, its data as JSON."""
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: %b\n\n" % orjson.dumps(data)


async def run(request: Request, orders: Orders) -> list[Generation]:
    """All generations that were ordered; when one fails, the others are dropped.

    Raises:
        BrigantineError: the first one's that fails.
        ClientDisconnect: the client has gone.
    """
    calls = _Calls(request, orders)
    try:
        return await asyncio.gather(*calls.tasks)
    except asyncio.CancelledError:
        if calls.watch.gone.done():
            raise ClientDisconnect from None
        raise
    finally:
        await calls.close()


class Stream(Response):
    """Answers with what is made, from the first part on. All that it starts ends with it.

    Args:
        request: the HTTP request, its body read.
        orders: what it asks for.
        script: how it is told.
    """

    def __init__(self, request: Request, orders: Orders, script: Script) -> None:
        self.background = None
        self._request = request
        self._orders = orders
        self._script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feed = _Feed(self._script, engine_of(self._request).settings.stream_interval_s)
        calls = _Calls(self._request, self._orders, feed)
        try:
            await self._tell(scope, send, calls, feed)
        except asyncio.CancelledError:
            if calls.watch.gone.done():
                raise ClientDisconnect from None
            raise
        finally:
            await calls.close()

    async def _tell(self, scope: Scope, send: Send, calls: _Calls, feed: _Feed) -> None:
        begun, more = False, True
        while more:
            try:
                said = await feed.take()
                more = calls.running()
                if not more:
                    said += self._script.end()
            except Exception as error:
                if not begun:
                    raise
                said, more = self._script.error(as_ours(error, scope)), False
            if not begun:
                await _sent(send, {"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
                begun = True
            await _sent_body(send, said, more)


class _Feed:
    """What the generations of one request have shown, until it is sent.

    Args:
        script: how it is told.
        interval_s: how long what ends no row waits after what was sent before.
    """

    def __init__(self, script: Script, interval_s: float) -> None:
        self._script = script
        self._interval_s = interval_s
        self._said: list[bytes] = []
        self._unsaid: dict[int, Media] = {}  # of each row, what may be said together with what follows
        self._shown: dict[int, int] = {}  # bytes of each row
        self._failed: Exception | None = None
        self._news = asyncio.Event()
        self._taken_s = -interval_s
        self._timer: asyncio.TimerHandle | None = None

    def wake(self, _: object = None) -> None:
        """Something has happened that cannot wait."""
        self._news.set()

    def show(self, first: int, index: int, media: Media, done: bool) -> None:
        """As `OnPart`, of a generation whose rows are counted from `first` on."""
        if self._failed is not None:
            return
        index += first
        shown = self._shown.get(index, 0)
        self._shown[index] = shown + len(media.body)
        if not done and not media.info:
            before = self._unsaid.get(index)
            self._unsaid[index] = media if before is None else Media(media.type, before.body + media.body)
        else:
            # Said at once, since what a client that does not read leaves here is far larger before.
            self._say_rest(index)
            self._say(
                partial(self._script.whole, index, media, shown)
                if done
                else partial(self._script.part, index, media)
            )
        if done or self._failed is not None:
            self.wake()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._taken_s + self._interval_s, self.wake)

    async def take(self) -> bytes:
        """Wait for news, and take all that is to be said before something could not be.

        Raises:
            BrigantineError: something could not be said.
        """
        await self._news.wait()
        self._news.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._taken_s = asyncio.get_running_loop().time()
        for index in list(self._unsaid):
            self._say_rest(index)
        said, self._said = b"".join(self._said), []
        if self._failed is not None:
            if not said:
                raise self._failed
            self.wake()  # for the next time
        return said

    def _say_rest(self, index: int) -> None:
        media = self._unsaid.pop(index, None)
        if media is not None:
            self._say(partial(self._script.part, index, media))

    def _say(self, said: Callable[[], bytes]) -> None:
        if self._failed is not None:
            return
        try:
            self._said.append(said())
        except Exception as error:
            self._failed = error


class _Calls:
    """The generations that one HTTP request has started, and the watch over its client."""

    def __init__(self, request: Request, orders: Orders, feed: _Feed | None = None) -> None:
        engine, patience = engine_of(request), patience_s(request)
        self.watch = Watch(request, 0.0) if feed else Watch(request)
        self.tasks: list[asyncio.Task[Any]] = []
        """Each with its generation as its result, or with none where all of that is shown."""
        for number, body in enumerate(orders.bodies):
            on_part = partial(feed.show, number * orders.rows) if feed else None
            caller = Caller(patience, orders.size // len(orders.bodies), self.watch.gone, on_part)
            made = engine.generate(orders.served.record.name, body, orders.media_type, caller, orders.also)
            named = _named(made, orders.names)
            self.tasks.append(asyncio.ensure_future(_dropped(named) if feed else named))
        if feed:
            for task in self.tasks:
                task.add_done_callback(feed.wake)

    def running(self) -> bool:
        """Whether there is more to come.

        Raises:
            BrigantineError: one has failed.
            asyncio.CancelledError: the client has gone.
        """
        done = [task for task in self.tasks if task.done()]
        for task in done:
            task.result()
        return len(done) < len(self.tasks)

    async def close(self) -> None:
        """Stop what still runs, and wait until it has."""
        self.watch.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _named(made: Awaitable[Generation], names: Mapping[str, str]) -> Generation:
    """A generation whose errors name the fields as the request does."""
    try:
        return await made
    except BadParams as error:
        raise error.renamed(names) from error


async def _dropped(made: Awaitable[Generation]) -> None:
    """What has been shown is not kept for as long as its client takes to read it."""
    await made


async def _sent_body(send: Send, body: bytes, more: bool) -> None:
    """Send some of the answer, in slices: a client that is slow, and reads, takes one of them in time."""
    for start in range(0, len(body) or 1, _SLICE):
        end = start + _SLICE
        message = {
            "type": "http.response.body",
            "body": body[start:end],
            "more_body": more or end < len(body),
        }
        await _sent(send, message)


async def _sent(send: Send, message: Message) -> None:
    """Send a message to a client that reads.

    Raises:
        ClientDisconnect: it does not.
    """
    try:
        async with timeout(_STALLED_S):
            await send(message)
    except asyncio.TimeoutError:
        raise ClientDisconnect from None
