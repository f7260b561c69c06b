"""What all routes share: reading a body, answering in JSON, and saying no as OpenAI does."""

from __future__ import annotations

import asyncio
import logging
import math
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson
from async_timeout import timeout  # asyncio's own, and the same for Python 3.10
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from ..engine import Engine, Generation, Served
from ..errors import (
    BadParams,
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    BrigantineError,
    FieldError,
    MethodNotAllowed,
    NotReady,
)
from ..media import Media
from ..metrics import STAGES
from ..settings import Settings

__all__ = [
    "Json",
    "Watch",
    "as_object",
    "as_ours",
    "b64",
    "engine_of",
    "error_object",
    "error_response",
    "header",
    "patience_s",
    "read_object",
    "served_for",
    "server_timing",
    "stages_ms",
]

log = logging.getLogger("brigantine.api")

_DRAIN_BYTES = 268_435_456
"""How much of a too large body is read and thrown away, so that a client that is still sending gets its 413."""


_TIMING = ", ".join([
    *(f"{stage};dur=%.3f" for stage in (*STAGES, "total")),
    'batch;desc="%d rows in a bucket of %d"',
]).encode()  # fmt: skip
_STAGES_MS = b"{%b}" % ",".join(f'"{stage}":%.3f' for stage in STAGES).encode()
_WATCH_AFTER_S = 0.05
"""Most answers are there before, and are spared a task that waits for the client to hang up."""


class Json(Response):
    """JSON through orjson. Its headers are put together here, which takes a fifth of Starlette's time."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.status_code = status
        self.background = None
        self.body = orjson.dumps(content)
        self.raw_headers = [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", b"application/json"),
            *headers,
        ]


def engine_of(request: Request) -> Engine:
    """The running engine.

    Raises:
        NotReady: the service is still loading its models, or is stopping.
    """
    engine: Engine | None = request.scope["state"]["host"].engine  # `request.state` costs a microsecond
    if engine is None:
        raise NotReady(
            "the service is loading its models, or stopping; ask /readyz, or try again in a second"
        )
    return engine


async def read_object(request: Request, settings: Settings) -> tuple[dict[str, Any], int]:
    """The request's body, a JSON object, and the bytes that it had.

    Raises:
        BodyTooLarge: more bytes came than the settings allow, or were announced.
        BodyTooSlow: it did not come in time.
        BadRequest: not JSON, or not an object.
    """
    try:
        async with timeout(settings.timeout_s):
            body = await _read(request, settings.max_body_bytes)
    except asyncio.TimeoutError:
        raise BodyTooSlow(
            f"body: expected all of it within {settings.timeout_s:g} s (BRIGANTINE_TIMEOUT_S), it is still coming"
        ) from None
    return as_object(body), len(body)


def as_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object.

    Raises:
        BadRequest: not JSON, or not an object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: expected JSON, got {_excerpt(body)}: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"body: expected a JSON object, got {_excerpt(body)}")
    return value  # pyright: ignore[reportUnknownVariableType] - what is in it is for `parse` to judge


def header(request: Request, name: bytes) -> list[str]:
    """All values of a header, whose name is in small letters, as ASGI has it."""
    return [value.decode("latin-1") for key, value in request.scope["headers"] if key == name]


async def _read(request: Request, limit: int) -> bytes:
    if header(request, b"expect") and (_whole_number(_announced(request)) or 0) > limit:
        raise _too_large(limit, _announced(request))  # the client waits for our word before it sends
    chunks: list[bytes] = []
    size = 0
    more = True
    while more and size <= _DRAIN_BYTES:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
    if size > limit:
        raise _too_large(limit, _announced(request) or f"over {limit}")
    return b"".join(chunks)


def _announced(request: Request) -> str:
    return ",".join(header(request, b"content-length"))


def _too_large(limit: int, came: str) -> BodyTooLarge:
    return BodyTooLarge(f"body: expected at most {limit} bytes (BRIGANTINE_MAX_BODY_BYTES), got {came}")


def _excerpt(body: bytes, limit: int = 40) -> str:
    return repr(body[:limit].decode("utf-8", "replace")) + ("..." if len(body) > limit else "")


def as_ours(error: BaseException, scope: Scope) -> BrigantineError:
    """The error to answer with; a fault of ours, or of a plugin, is in the log under the request's id."""
    ours = error if isinstance(error, BrigantineError) else _internal()
    if ours.status == 500:
        request_id = scope["state"]["request_id"]
        log.error("%s %s %s", scope["method"], quote(scope["path"]), request_id, exc_info=error)
    return ours


def _internal() -> BrigantineError:
    return BrigantineError("an internal error; the service's log has it under this x-request-id")


def error_response(error: BrigantineError) -> Response:
    """The error with its status and the headers that belong to it."""
    if not 400 <= error.status < 600:
        log.error("%s: expected a status from 400 to 599, got %r", type(error).__name__, error.status)
        error = _internal()
    headers = [] if error.retry_after_s is None else [(b"retry-after", b"%.0f" % error.retry_after_s)]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode("latin-1")))
    return Json(error_object(error), error.status, headers)


def error_object(error: BrigantineError) -> dict[str, Any]:
    """OpenAI's error object, so that every client of theirs reads it."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    body: dict[str, Any] = {
        "message": _utf8(str(error)),
        "type": kind,
        "param": error.param and _utf8(error.param),
        "code": error.code,
    }
    errors: tuple[FieldError, ...] = getattr(error, "errors", ())
    if errors:
        body["errors"] = [{name: _utf8(said) for name, said in field._asdict().items()} for field in errors]
    return {"error": body}


def _utf8(text: str) -> str:
    """What JSON can have of a text: a plugin may say anything, such as the name of a file that is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def served_for(engine: Engine, content: str, name: str | None) -> Served:
    """The model asked for; absent or empty means the default for this content.

    Raises:
        ModelNotFound: there is no such model.
        BadParams: it makes other content.
    """
    served = engine.served(name or engine.registry.default(content, engine.settings.default_model))
    if served.plugin.content != content:
        got = f"{name!r}, which makes {served.plugin.content}"
        raise BadParams([FieldError("model", f"a model that makes {content}", got)])
    return served


class Watch:
    """Waits for the client to hang up, from `after_s` on, until it is told to stop."""

    def __init__(self, request: Request, after_s: float = _WATCH_AFTER_S) -> None:
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = loop.create_future()
        """Finishes when the client has hung up."""
        self._request = request
        self._task: asyncio.Task[None] | None = None
        self._timer = loop.call_later(after_s, self._start)

    def stop(self) -> None:
        """Wait no longer."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            # It ends with an error that remembers us: all that we hold would wait for the garbage collector.
            self._task = None

    def _start(self) -> None:
        self._task = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.gone.set_result(None)


def patience_s(request: Request) -> float:
    """How long the client will wait, if it says so.

    Raises:
        BadRequest: X-Request-Timeout-Ms is no positive number.
    """
    values = header(request, b"x-request-timeout-ms")
    if not values:
        return math.inf
    sent = ",".join(values)
    milliseconds = _whole_number(sent)
    if not milliseconds:
        raise BadRequest(
            f"X-Request-Timeout-Ms: expected a whole number of milliseconds over 0, got {sent[:40]!r}"
        )
    return milliseconds / 1000


def _whole_number(text: str) -> int | None:
    """A header's number; None for anything else, and for more digits than a sane one has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def server_timing(generation: Generation) -> tuple[bytes, bytes]:
    """The stages of a request as the header `Server-Timing` (https://www.w3.org/TR/server-timing/), in ms."""
    milliseconds = [1e3 * seconds for seconds in (*generation.stages_s.values(), generation.total_s)]
    return b"server-timing", _TIMING % (*milliseconds, generation.batch_rows, generation.bucket)


def stages_ms(generation: Generation) -> orjson.Fragment:
    """The stages of a request as a JSON object."""
    return orjson.Fragment(_STAGES_MS % tuple(1e3 * seconds for seconds in generation.stages_s.values()))


def b64(media: Media) -> orjson.Fragment:
    """A medium's bytes in base64, as a JSON string that is copied into the answer as it is."""
    return orjson.Fragment(b'"%b"' % b2a_base64(media.body, newline=False))
