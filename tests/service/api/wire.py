"""The client's end of ASGI: it reads as it likes, and hangs up when it likes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from brigantine.api import Entry, Host
from brigantine.engine import Engine
from starlette.applications import Starlette


class Wire:
    """One request, its body sent, and what has come of the answer."""

    def __init__(
        self, engine: Engine, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.bodies: list[bytes] = []
        """As they were sent."""
        self.complete = False
        self.aborted = False
        self.reads = asyncio.Event()
        """Unset: it leaves unread what is sent next."""
        self.reads.set()
        self.bytes_per_s = math.inf
        """How fast it reads."""
        self.transport = self  # as uvicorn's has one, for what ASGI cannot say
        self._gone = asyncio.Event()
        self._sent = False
        self._body = json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        self.host = Host(engine)
        entry = Entry(Starlette(), self.host)  # type: ignore[arg-type]
        self.task = asyncio.ensure_future(entry(scope, self.receive, self.send))  # type: ignore[arg-type]

    async def receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            await asyncio.sleep(len(message["body"]) / self.bytes_per_s)
            self.bodies.append(message["body"])
            self.complete = not message.get("more_body", False)

    def get_extra_info(self, name: str) -> None:
        """It has no socket."""

    def abort(self) -> None:
        self.aborted = True

    def hang_up(self) -> None:
        self._gone.set()

    @property
    def text(self) -> str:
        return b"".join(self.bodies).decode()


def events(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: each one's name, and its data; `[DONE]` is none."""
    found: list[tuple[str, Any]] = []
    assert text.endswith("\n\n")
    for block in text.removesuffix("\n\n").split("\n\n"):
        *names, data = block.split("\n")
        name = names[0].removeprefix("event: ") if names else ""
        assert len(names) <= 1 and data.startswith("data: ")
        data = data.removeprefix("data: ")
        found.append((name, None if data == "[DONE]" else json.loads(data)))
    return found


def chunks(text: str) -> list[dict[str, Any]]:
    """The chunks of one of OpenAI's streams that ends well."""
    *several, done = [data for _, data in events(text)]
    assert done is None
    return several


def pieces(several: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    """What several chunks have of the choice with this index."""
    return [choice for chunk in several for choice in chunk["choices"] if choice["index"] == index]
