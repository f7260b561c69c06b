"""`POST /v1/completions`: text that goes on from a prompt, in OpenAI's older form.

https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from ..errors import BadParams, FieldError
from .fields import params_of
from .routes import Route
from .text import Form, TextBody, Token, answer, read

__all__ = ["CompletionsBody", "routes"]

_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        {"type": "null"},
    ]
}


def _prompts(value: Any) -> list[Any]:
    """Each prompt: a string, or the ids of tokens."""
    if value is None:
        return []
    if isinstance(value, str) or _are_ids(value):
        return [value]
    if isinstance(value, list) and value:
        several = cast("list[Any]", value)
        if all(isinstance(one, str) for one in several) or all(map(_are_ids, several)):
            return several
    raise ValueError("a string, token ids, or a list of strings or of lists of token ids")


def _are_ids(value: Any) -> bool:
    """Whether it is a list of ids, at least one. A bool is an int, but no id."""
    return isinstance(value, list) and {*map(type, cast("list[Any]", value))} == {int}


class CompletionsBody(TextBody):
    """OpenAI's part of a request for completions."""

    prompt: Annotated[list[Any], BeforeValidator(_prompts), WithJsonSchema(_SCHEMA)] = Field(
        default_factory=list[Any],
        description="What the text goes on from; each of several gets `n` of its own.",
    )


class _Completions(Form):
    prefix = "cmpl"
    whole = chunk = "text_completion"

    def choice(self, text: str, tokens: Sequence[Token] | None) -> dict[str, Any]:
        return self.part(text, tokens, 0)

    def first(self) -> None:
        return None

    def part(self, text: str, tokens: Sequence[Token] | None, offset: int) -> dict[str, Any]:
        return {"text": text, "logprobs": None if tokens is None else _logprobs(tokens, offset)}

    def last(self) -> dict[str, Any]:
        return {"text": "", "logprobs": None}


async def completions(request: Request) -> Response:
    """Texts that go on from one prompt or several."""
    body, served, size = await read(request, CompletionsBody)
    if (body.model_extra or {}).get("messages"):
        raise BadParams(
            [FieldError("messages", "a prompt (/v1/chat/completions takes messages)", "messages")]
        )
    params = params_of(served, body.model_extra or {}, body.n or 1)
    several = [{**params, "prompt": prompt} for prompt in body.prompt] or [params]
    return await answer(request, body, served, several, size, _Completions())


def routes() -> list[Route]:
    return [Route("/v1/completions", completions, "POST")]


def _logprobs(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """OpenAI's older form: lists beside each other. `text_offset` counts the characters of `text`."""
    offsets: list[int] = []
    for token in tokens:
        goes_on = bool(token.bytes) and token.bytes[0] & 0xC0 == 0x80  # inside of a character
        offsets.append(max(offset - goes_on, 0))
        offset += token.begins
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.shown for token in tokens],
        "top_logprobs": [_top(token) for token in tokens],
        "text_offset": offsets,
    }


def _top(token: Token) -> dict[str, float] | None:
    """The likeliest, and the one that came. Of tokens that look alike the likelier."""
    top: dict[str, float] = {}
    for one in (*token.top, token):
        if one.shown is not None:
            top.setdefault(one.token, one.shown)
    return top or None
