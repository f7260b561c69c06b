"""What OpenAI's two routes for text share: reading a request, and answering with numbered choices, at once or in parts.

Any plugin whose content is `text` is served. Its Params have OpenAI's fields under OpenAI's names, as far as it can do
what they say. Its Media say in `info` why they end (`finish_reason`), what they took (`usage`) and, where that was
asked for, the `logprobs`: for each token `token`, `bytes`, `logprob`, and in `top` those that it could have been.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from starlette.requests import Request
from starlette.responses import Response

from ..engine import Served
from ..errors import BadParams, BrigantineError, FieldError, GenerationFailed
from ..media import Media
from ..request import parse
from ..seeds import MAX_SEED, derive_seed
from ..usage import Usage, usage_of
from .http import Json, engine_of, error_object, read_object, served_for, server_timing
from .stream import Orders, Stream, event, run

__all__ = ["CONTENT", "Form", "TextBody", "Token", "answer", "read"]

CONTENT = "text"
_LEAST_LOGPROB = -9999.0
"""OpenAI's word for the logarithm of nought: JSON has no infinity."""


class StreamOptions(BaseModel):
    """How a stream is told."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    include_usage: StrictBool | None = Field(None, description="End with a chunk that has the usage.")


class TextBody(BaseModel):
    """OpenAI's part of a request. All other fields are the plugin's Params."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: StrictStr | None = Field(
        None, max_length=256, description="A model that makes text. Absent or empty: the default."
    )
    n: StrictInt | None = Field(None, ge=1, description="How many to make of each prompt.")
    seed: StrictInt | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="The same model, params and seed give the same text. Absent: drawn and reported.",
    )
    stream: StrictBool | None = Field(
        None, description="Show the text while it is made, as server-sent events."
    )
    stream_options: StreamOptions | None = Field(None, description="For a stream.")

    @property
    def names(self) -> Mapping[str, str]:
        """What the plugin's Params are called in this request, where that is not the same."""
        return {}


Body = TypeVar("Body", bound=TextBody)


class Token(BaseModel):
    """One of `logprobs`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: str
    bytes: tuple[int, ...]
    logprob: float | None = None
    """None for the first of a prompt, which nothing comes before."""
    top: tuple[Token, ...] = ()

    @property
    def shown(self) -> float | None:
        """Its logprob, as JSON can have it."""
        return None if self.logprob is None else max(self.logprob, _LEAST_LOGPROB)

    @property
    def begins(self) -> int:
        """How many characters begin in it: a token may be a part of one."""
        return sum(byte & 0xC0 != 0x80 for byte in self.bytes)


_TOKENS = TypeAdapter(list[Token])


class Form(ABC):
    """What differs between the routes."""

    prefix: ClassVar[str]
    """Of an answer's id."""
    whole: ClassVar[str]
    """What an answer is called."""
    chunk: ClassVar[str]
    """What a part of a stream is called."""

    @abstractmethod
    def choice(self, text: str, tokens: Sequence[Token] | None) -> dict[str, Any]:
        """A text that is done."""

    @abstractmethod
    def first(self) -> dict[str, Any] | None:
        """What a choice in a stream begins with, if not with text."""

    @abstractmethod
    def part(self, text: str, tokens: Sequence[Token] | None, offset: int) -> dict[str, Any]:
        """Some text in a stream, after so many characters."""

    @abstractmethod
    def last(self) -> dict[str, Any]:
        """What a choice in a stream ends with."""


async def read(request: Request, kind: type[Body]) -> tuple[Body, Served, int]:
    """OpenAI's part of the body, the model that it asks for, and the bytes that it had."""
    engine = engine_of(request)
    sent, size = await read_object(request, engine.settings)
    body = parse(kind, sent)
    return body, served_for(engine, CONTENT, body.model), size


async def answer(
    request: Request,
    body: TextBody,
    served: Served,
    params: Sequence[Mapping[str, Any]],
    size: int,
    form: Form,
) -> Response:
    """Make `n` texts of each of `params`, and say so in this form."""
    rows, most = body.n or 1, engine_of(request).settings.max_n
    if len(params) > 1 and rows * len(params) > most:
        expected = f"at most {most} texts in all (BRIGANTINE_MAX_N)"
        raise BadParams([FieldError("prompt", expected, f"{len(params)} prompts, and n = {rows}")])
    seed = random.randint(0, MAX_SEED) if body.seed is None else body.seed
    asked = _Asked(served, form, rows, seed)
    orders = Orders(
        served,
        [{**one, "n": rows, "seed": derive_seed(seed, index * rows)} for index, one in enumerate(params)],
        size,
        rows,
        next((kind for kind in served.plugin.types if kind.startswith("text/")), None),
        tuple(type(body).model_fields),
        body.names,
    )
    if body.stream:
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return Stream(request, orders, _Chunks(asked, usage))
    generations = await run(request, orders)
    media = [one for generation in generations for one in generation.media]
    slowest = max(generations, key=lambda generation: generation.total_s)
    return Json(
        {
            **asked.head(form.whole),
            "choices": [_choice(asked, index, one) for index, one in enumerate(media)],
            "usage": _total(rows, map(usage_of, media)),
        },
        headers=[server_timing(slowest)],
    )


@dataclass(frozen=True)
class _Asked:
    """What every choice of an answer has in common."""

    served: Served
    form: Form
    rows: int
    """Choices for each prompt."""
    seed: int
    number: int = field(default_factory=lambda: getrandbits(128))
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str) -> dict[str, Any]:
        model = self.served.record.model
        assert model is not None, "what is served has a model"
        return {
            "id": f"{self.form.prefix}-{self.number:032x}",
            "object": kind,
            "created": self.created,
            "model": self.served.record.name,
            "system_fingerprint": f"fp_{model.digest[:12]}",
        }

    def numbered(self, index: int) -> dict[str, Any]:
        """What a choice says of itself. By its seed it is made again alone."""
        first = index - index % self.rows
        return {"index": index, "seed": derive_seed(derive_seed(self.seed, first), index - first)}


def _choice(asked: _Asked, index: int, media: Media) -> dict[str, Any]:
    return {
        **asked.numbered(index),
        **asked.form.choice(_text(media.body), _tokens(media)),
        "finish_reason": _finish(media),
    }


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _finish(media: Media) -> str:
    return media.info.get("finish_reason", "stop")


def _tokens(media: Media) -> list[Token] | None:
    said = media.info.get("logprobs")
    if said is None:
        return None
    try:
        return _TOKENS.validate_python(said)
    except ValidationError as error:
        raise GenerationFailed(
            f"info['logprobs'] must have `token`, `bytes`, `logprob` and `top` for each token: {error}"
        ) from error


def _total(rows: int, usages: Iterable[Usage | None]) -> dict[str, Any] | None:
    """The usage of all choices; a prompt counts once, however many are made of it."""
    several = [usage for usage in usages if usage is not None]
    if not several:
        return None
    prompt = sum(usage.prompt_tokens for usage in several[::rows])
    cached = sum(usage.cached_tokens for usage in several[::rows])
    completion = sum(usage.completion_tokens for usage in several)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
    }


@dataclass
class _Shown:
    """How much of a choice has been shown."""

    numbered: dict[str, Any]
    begun: bool = False
    tokens: int = 0
    chars: int = 0


class _Chunks:
    """A stream of choices. See `Script`."""

    def __init__(self, asked: _Asked, include_usage: bool) -> None:
        self._asked = asked
        self._form = asked.form
        self._head = asked.head(asked.form.chunk)
        self._usage = include_usage
        self._shown: dict[int, _Shown] = {}
        self._usages: dict[int, Usage | None] = {}

    def part(self, index: int, media: Media) -> bytes:
        shown = self._of(index)
        return self._begun(shown) + self._more(shown, media.body, _tokens(media))

    def whole(self, index: int, media: Media, shown: int) -> bytes:
        choice = self._of(index)
        self._usages[index] = usage_of(media)
        rest, tokens = media.body[shown:], _tokens(media)
        if tokens is not None:
            tokens = tokens[choice.tokens :]
        more = self._more(choice, rest, tokens) if rest or tokens else b""
        return self._begun(choice) + more + self._chunk(choice, self._form.last(), _finish(media))

    def error(self, error: BrigantineError) -> bytes:
        return event(error_object(error))

    def end(self) -> bytes:
        done = b"data: [DONE]\n\n"
        if not self._usage:
            return done
        usages = (self._usages[index] for index in sorted(self._usages))
        return event({**self._head, "choices": [], "usage": _total(self._asked.rows, usages)}) + done

    def _of(self, index: int) -> _Shown:
        if index not in self._shown:
            self._shown[index] = _Shown(self._asked.numbered(index))
        return self._shown[index]

    def _begun(self, choice: _Shown) -> bytes:
        first = None if choice.begun else self._form.first()
        choice.begun = True
        return b"" if first is None else self._chunk(choice, first)

    def _more(self, choice: _Shown, body: bytes, tokens: Sequence[Token] | None) -> bytes:
        said = self._chunk(choice, self._form.part(_text(body), tokens, choice.chars))
        if tokens is not None:
            choice.tokens += len(tokens)
            choice.chars += sum(token.begins for token in tokens)
        return said

    def _chunk(self, choice: _Shown, said: Mapping[str, Any], finish: str | None = None) -> bytes:
        usage = {"usage": None} if self._usage else {}
        one = {**choice.numbered, **said, "finish_reason": finish}
        return event({**self._head, "choices": [one], **usage})
