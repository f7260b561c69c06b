"""What all routes share: reading a body, answering in JSON, and saying no as OpenAI does."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from ..engine import Engine
from ..errors import BadRequest, BodyTooLarge, BrigantineError, FieldError, NotReady
from ..media import Media

__all__ = ["Json", "b64", "engine_of", "error_response", "read_object"]

_DRAIN_BYTES = 268_435_456
"""How much of a too large body is read and thrown away, so that a client that is still sending gets its 413."""


class Json(Response):
    """JSON through orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def engine_of(request: Request) -> Engine:
    """The running engine.

    Raises:
        NotReady: the service is still loading its models, or is stopping.
    """
    state: State = request.state
    engine: Engine | None = state.host.engine
    if engine is None:
        raise NotReady("the service is loading its models; ask /readyz, or try again in a second")
    return engine


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """The request's body, a JSON object of at most `limit` bytes.

    Raises:
        BodyTooLarge: more than `limit` bytes came, or were announced.
        BadRequest: not JSON, or not an object.
    """
    body = await _read(request, limit)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: expected JSON, got {_excerpt(body)}: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"body: expected a JSON object, got {_excerpt(body)}")
    return value  # pyright: ignore[reportUnknownVariableType] - what is in it is for `parse` to judge


async def _read(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > _DRAIN_BYTES:
            break
    if size > limit:
        raise BodyTooLarge(
            f"body: expected at most {limit} bytes (BRIGANTINE_MAX_BODY_BYTES), got "
            f"{request.headers.get('content-length', f'over {size}')}"
        )
    return b"".join(chunks)


def _excerpt(body: bytes, limit: int = 40) -> str:
    return repr(body[:limit].decode("utf-8", "replace")) + ("..." if len(body) > limit else "")


def error_response(error: BrigantineError) -> Response:
    """OpenAI's error object, so that every client of theirs reads it."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        error.status, "invalid_request_error" if error.status < 500 else "server_error"
    )
    body: dict[str, Any] = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    errors: tuple[FieldError, ...] = getattr(error, "errors", ())
    if errors:
        body["errors"] = [field._asdict() for field in errors]
    headers = {} if error.retry_after_s is None else {"Retry-After": f"{error.retry_after_s:.0f}"}
    return Json({"error": body}, error.status, headers)


def b64(media: Media) -> str:
    """A medium's bytes in base64."""
    return base64.b64encode(media.body).decode("ascii")
