"""Clients of a stream that hang up in the middle of it, or stop reading and stay."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import time
from contextlib import suppress

import httpx

_HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
_AT_ONCE = 32
_PATIENCE_S = 40.0
_GAUGES = ("in_flight", "queue_rows", "cache_used_ratio")


def deserters(port: int, model: str, hang_up: int, stall: int, at_once: int = 75) -> dict[str, float]:
    """So many clients of each kind; what the service still holds after them, while those that stall are still there.

    Args:
        port: the service's.
        model: that streams.
        hang_up: how many leave after some events.
        stall: how many read nothing at all; `at_once` of them at a time.
        at_once: see `stall`.
    """
    return asyncio.run(_deserters(port, model, hang_up, stall, at_once))


async def _deserters(port: int, model: str, hang_up: int, stall: int, at_once: int) -> dict[str, float]:
    rng = random.Random(0)
    gate = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(_leave(port, model, rng, gate) for _ in range(hang_up)))
    held = await _held(port, model)
    for begin in range(0, stall, at_once):
        count = min(at_once, stall - begin)
        silent = await asyncio.gather(*(_stand(port, model, rng.randrange(2**31)) for _ in range(count)))
        held = await _held(port, model)
        for one in silent:
            one.close()
        if any(held.values()):
            break
    return held


async def _leave(port: int, model: str, rng: random.Random, gate: asyncio.Semaphore) -> None:
    """Read some events and hang up, as often at once as in order."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request(model, rng.randrange(2**31)))
        with suppress(asyncio.IncompleteReadError):  # the text was over before
            for _ in range(rng.randrange(1, 24)):
                await asyncio.wait_for(reader.readuntil(b"\n\n"), _PATIENCE_S)
        writer.transport.abort() if rng.random() < 0.5 else writer.close()


async def _stand(port: int, model: str, seed: int) -> socket.socket:
    """Ask for more than the buffers on the way hold, and read nothing."""
    silent = socket.socket()
    silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    silent.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(silent, ("127.0.0.1", port))
    await loop.sock_sendall(silent, _request(model, seed, logprobs=20))
    return silent


async def _held(port: int, model: str) -> dict[str, float]:
    """What is held when it is nothing, or at last."""
    deadline = time.monotonic() + _PATIENCE_S
    async with httpx.AsyncClient(timeout=10) as client:
        while True:
            exposed = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            found = {name: _gauge(exposed, name, model) for name in _GAUGES}
            if not any(found.values()) or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.2)


def _gauge(exposed: str, name: str, model: str) -> float:
    """The largest of those with this name and model."""
    lines = re.findall(
        rf'^brigantine_{name}{{[^}}]*model="{re.escape(model)}"[^}}]*}} (\S+)$', exposed, re.MULTILINE
    )
    return max(map(float, lines), default=0.0)


def _request(model: str, seed: int, logprobs: int | None = None) -> bytes:
    asked = {
        "model": model,
        "prompt": "\n",
        "max_tokens": 240,
        "seed": seed,
        "stream": True,
        "logprobs": logprobs,
    }
    body = json.dumps(asked).encode()
    return b"%bContent-Length: %d\r\n\r\n%b" % (_HEAD, len(body), body)
