"""Streaming clients in a process of their own: told what to do in JSON, they tell what came.

Each text has a connection of its own, as from one who comes, reads and goes. A time is that at which bytes came in.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

_LONGEST_S = 60.0


@dataclass(frozen=True)
class Site:
    """Where to ask, and for what."""

    port: int
    model: str
    most: int
    """Tokens of each text."""
    temperature: float = 1.0

    def request(self, prompt: Sequence[int], seed: int, most: int | None = None) -> bytes:
        """Of a text, streamed, with its usage at the end."""
        body = json.dumps({
            "model": self.model, "prompt": list(prompt), "seed": seed, "max_tokens": most or self.most,
            "temperature": self.temperature, "stream": True, "stream_options": {"include_usage": True},
        })  # fmt: skip
        head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@dataclass
class Text:
    """One text as its reader saw it."""

    seed: int
    prompt: Sequence[int]
    start_s: float = 0.0
    times_s: list[float] = field(default_factory=list[float])
    """When each part came."""
    parts: list[str] = field(default_factory=list[str])
    tokens: int = 0
    """As the server counts them; 0 when it did not come to its end."""
    fault: str = ""
    on_part: Callable[[], None] = lambda: None

    @property
    def first_s(self) -> float:
        """Seconds until the first part."""
        return self.times_s[0] - self.start_s

    def tokens_in(self, since: float, until: float) -> float:
        """Tokens that came between these times, were each part as many tokens."""
        within = sum(since <= at < until for at in self.times_s)
        return self.tokens * within / max(len(self.times_s), 1)


class Reader(asyncio.Protocol):
    """Reads one text."""

    def __init__(self, request: bytes, text: Text) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._text = text
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._rest = b""
        self._now = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            if event != b"data: [DONE]":
                self._told(json.loads(event.removeprefix(b"data: ")))

    def _told(self, said: dict[str, Any]) -> None:
        if said.get("usage"):
            self._text.tokens = said["usage"]["completion_tokens"]
        elif choices := said.get("choices"):
            if choices[0]["text"]:
                self._text.times_s.append(self._now)
                self._text.parts.append(choices[0]["text"])
                self._text.on_part()
        else:
            self._text.fault = json.dumps(said)[:300]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._text.tokens and not self._text.fault:
            self._text.fault = f"status {self._status}, {exc!r}, {self._rest[:300]!r}"
        self.ended.set_result(None)


async def read(site: Site, text: Text, most: int | None = None) -> Text:
    """Ask for a text and read all of it."""
    text.start_s = time.perf_counter()
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(
        lambda: Reader(site.request(text.prompt, text.seed, most), text), "127.0.0.1", site.port
    )
    await asyncio.wait_for(reader.ended, _LONGEST_S)
    return text


async def closed(
    site: Site, prompts: Sequence[Sequence[int]], streams: int, warm_s: float, seconds: float, seed: int
) -> dict[str, Any]:
    """`streams` readers, each of which asks for its next text when it has its last one; measured after `warm_s`."""
    since = time.perf_counter() + warm_s
    until = since + seconds
    texts: list[Text] = []

    async def go_on() -> None:
        while time.perf_counter() < until:
            number = len(texts)
            text = Text(seed + number, prompts[number % len(prompts)])
            texts.append(text)
            await read(site, text)

    await asyncio.gather(*(go_on() for _ in range(streams)))
    measured = [text for text in texts if since <= text.start_s < until]
    return {
        "tokens_per_s": sum(text.tokens_in(since, until) for text in texts) / seconds,
        "first_ms": [1e3 * text.first_s for text in measured if text.times_s],
        "faults": [text.fault for text in texts if text.fault],
        "texts": [(text.seed, text.prompt, "".join(text.parts)) for text in measured],
    }


async def arrivals(
    site: Site, prompts: Sequence[Sequence[int]], late: Sequence[Sequence[int] | None], seed: int
) -> dict[str, Any]:
    """As many episodes as in `late`: a text for each of `prompts` is being read, and then one more prompt comes.

    None for the control, in which none comes.
    """
    made: list[dict[str, Any]] = []
    for prompt in late:
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        texts = [Text(seed + number, one) for number, one in enumerate(prompts)]
        for text in texts:
            text.on_part = partial(_look, texts, settled)
        seed += len(texts) + 1
        reading = asyncio.gather(*(read(site, text) for text in texts))
        await asyncio.wait((reading, settled), return_when=asyncio.FIRST_COMPLETED)
        newcomer = Text(seed - 1, prompt or (), time.perf_counter())
        if prompt is not None:
            await read(site, newcomer, 8)
        await reading
        if any(text.fault for text in (*texts, newcomer)):
            return {"faults": [text.fault for text in (*texts, newcomer) if text.fault]}
        times = [text.times_s for text in texts]
        made.append({"prompt": len(prompt or ()), **stalled(times, newcomer.start_s, newcomer.times_s[:1])})
    return {"episodes": made, "faults": []}


def _look(texts: Sequence[Text], settled: asyncio.Future[None]) -> None:
    if not settled.done() and min(len(text.times_s) for text in texts) >= _SETTLED:
        settled.set_result(None)


_SETTLED = 24
"""Parts that each text has before the newcomer comes: what is before is the begin of the others."""
_LOOKED_AT = 12
"""Steps after an arrival that are looked at when it has no first token to wait for."""


def stalled(times: Sequence[Sequence[float]], arrived: float, first: Sequence[float]) -> dict[str, float]:
    """What an arrival did to streams whose parts came at these times, in their own steps.

    `longest`: the longest wait for a part that any of them had until the newcomer's first token, beyond a usual one.
    `lost`: the tokens that each of them is behind by then, on average.
    """
    before = (pairwise(stream[_SETTLED // 2 :]) for stream in times)
    step = _median([later - one for waits in before for one, later in waits if later < arrived])
    until = first[0] if first else arrived + _LOOKED_AT * step
    waits, lost = [step], [0.0]
    for stream in times:
        if stream[-1] < until:
            continue  # it ended meanwhile
        waits += [later - one for one, later in pairwise(stream) if later > arrived and one < until]
        lost.append((until - arrived) / step - sum(arrived < at <= until for at in stream))
    return {
        "step_ms": 1e3 * step,
        "longest": max(waits) / step - 1,
        "lost": sum(lost) / max(len(lost) - 1, 1),
        "first_ms": 1e3 * (until - arrived),
    }


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else float("nan")


def clients(what: str, site: Site, **options: Any) -> dict[str, Any]:
    """Run `closed` or `arrivals` in a process of its own."""
    asked = json.dumps({"what": what, "site": site.__dict__, **options})
    command = [sys.executable, str(Path(__file__))]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the clients failed: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def main() -> None:
    options = json.load(sys.stdin)
    what = {"closed": closed, "arrivals": arrivals}[options.pop("what")]
    site = Site(**options.pop("site"))
    gc.collect()
    gc.disable()  # a collection would look like a slow server
    json.dump(uvloop.run(what(site, **options)), sys.stdout)


if __name__ == "__main__":
    main()
