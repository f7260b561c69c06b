"""`POST /v1/chat/completions`: the next message of a conversation.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast, get_args

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from ..engine import Served
from ..errors import BadParams, FieldError
from .fields import params_of
from .routes import Route
from .text import Form, TextBody, Token, answer, read

__all__ = ["ChatBody", "routes"]

_OLDER = {"developer": "system"}
"""OpenAI's newer words for roles, and those that the templates of models know."""
_PARTS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}
_SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"type": "string"},
            "content": {"anyOf": [{"type": "string"}, _PARTS, {"type": "null"}]},
        },
    },
}


def _messages(value: Any) -> list[dict[str, str]]:
    """Each message's role and text.

    Raises:
        ValueError: one has neither, or more than text.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("a list of messages, at least one")
    return [_message(index, one) for index, one in enumerate(cast("list[Any]", value))]


def _message(index: int, said: Any) -> dict[str, str]:
    message = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise ValueError(f"messages with a role and a content, which message {index} has not")
    for name in ("audio", "function_call", "tool_calls"):
        if message.get(name):
            raise ValueError(f"messages of text alone (message {index} has {name})")
    if content is None and role == "assistant":
        content = ""
    if isinstance(content, list):
        content = "".join(_part(index, one) for one in cast("list[Any]", content))
    if not isinstance(content, str):
        raise ValueError(
            f"messages whose content is a string or a list of texts (message {index} has another)"
        )
    return {"role": _OLDER.get(role, role), "content": content}


def _part(index: int, said: Any) -> str:
    part = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    kind, text = part.get("type"), part.get("text")
    if kind != "text" or not isinstance(text, str):
        raise ValueError(f"content of the type 'text' (message {index} has {str(kind)[:40]!r})")
    return text


class ChatBody(TextBody):
    """OpenAI's part of a request for the next message."""

    messages: Annotated[list[dict[str, str]], BeforeValidator(_messages), WithJsonSchema(_SCHEMA)] = Field(
        default_factory=list[dict[str, str]], validate_default=True, description="The conversation so far."
    )
    logprobs: StrictBool | None = Field(None, description="Say how likely each token was.")
    top_logprobs: StrictInt | None = Field(
        None, ge=0, le=20, description="How many tokens to name that each could have been; needs `logprobs`."
    )
    max_completion_tokens: StrictInt | None = Field(
        None, description="The most tokens to make; goes before `max_tokens`. Without either: as many as fit."
    )

    @property
    def names(self) -> Mapping[str, str]:
        """As `TextBody.names`."""
        return {} if self.max_completion_tokens is None else {"max_tokens": "max_completion_tokens"}


class _Chat(Form):
    prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def choice(self, text: str, tokens: Sequence[Token] | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": _logprobs(tokens)}

    def first(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None}

    def part(self, text: str, tokens: Sequence[Token] | None, offset: int) -> dict[str, Any]:
        return {"delta": {"content": text}, "logprobs": _logprobs(tokens)}

    def last(self) -> dict[str, Any]:
        return {"delta": {}, "logprobs": None}


async def completions(request: Request) -> Response:
    """The next message of a conversation."""
    body, served, size = await read(request, ChatBody)
    return await answer(request, body, served, [_params(body, served)], size, _Chat())


def routes() -> list[Route]:
    return [Route("/v1/chat/completions", completions, "POST")]


def _params(body: ChatBody, served: Served) -> dict[str, Any]:
    """What the plugin is asked for."""
    known = served.request.model_fields
    if "messages" not in known:
        got = f"{served.record.name!r}, which takes none; ask /v1/completions"
        raise BadParams([FieldError("model", "a model that takes messages", got)])
    if body.top_logprobs and not body.logprobs:
        raise BadParams([FieldError("logprobs", "true where there is top_logprobs", repr(body.logprobs))])
    params = params_of(served, body.model_extra or {}, body.n or 1)
    params["messages"] = body.messages
    if body.logprobs:
        params["logprobs"] = body.top_logprobs or 0
    if body.max_completion_tokens is not None:
        params["max_tokens"] = body.max_completion_tokens
    elif "max_tokens" in known and type(None) in get_args(known["max_tokens"].annotation):
        params.setdefault("max_tokens", None)  # OpenAI's default here: as many as fit
    return params


def _logprobs(tokens: Sequence[Token] | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    return {
        "content": [{**_told(token), "top_logprobs": [*map(_told, token.top)]} for token in tokens],
        "refusal": None,
    }


def _told(token: Token) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.shown, "bytes": token.bytes}
