"""Plugins whose class or Params break a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from brigantine import Arrays, BadParams, FieldError, Media, Params, text, wav
from pydantic import ConfigDict, Field, field_validator, model_validator

from tests.service.testing.chimes import Chime, ChimeParams
from tests.service.testing.fault import FAULTS, Fault, breaks


def asked(**fields: Any) -> type[Params]:
    """ChimeParams with other fields."""
    return type("ChimeParams", (ChimeParams,), {"__module__": __name__, **fields})


def with_field(kind: Any, field: Any) -> type[Params]:
    return asked(__annotations__={"extra": kind}, extra=field)


class NoPlugin:
    name = "chime"


FAULTS.append(Fault("subclass", NoPlugin))


@breaks("name")
class Shouted(Chime):
    name = "Chime!"


@breaks("content")
class Contentless(Chime):
    content = ""


@breaks("plural")
class Spaced(Chime):
    plural = "many chimes"


@breaks("types")
class Untyped(Chime):
    types = ()


@breaks("isolation")
class Alone(Chime):
    isolation = "alone"  # type: ignore[assignment]


@breaks("method", says="a plain function")
class Async(Chime):
    async def generate(self, batch: Arrays) -> Arrays:  # type: ignore[override]
        return batch


@breaks("params")
class Loose(Chime):
    params = dict  # type: ignore[assignment]


@breaks("default", says="a default within its own bounds")
class Beyond(Chime):
    params = with_field(int, Field(default=3, ge=0, le=2, description="Which."))


@breaks("field", says="a description")
class Undescribed(Chime):
    params = with_field(int, Field(default=1, ge=0, le=2))


@breaks("field", says="a default")
class Undefaulted(Chime):
    params = with_field(int, Field(ge=0, le=2, description="Which."))


@breaks("bounds", says="without an upper bound")
class Boundless(Chime):
    params = with_field(int, Field(default=1, ge=0, description="Which."))


@breaks("schema-round-trip", "defaults", says="again, from its JSON")
class Rising(Chime):
    class params(ChimeParams):  # noqa: N801
        @field_validator("pitch")
        @classmethod
        def higher(cls, pitch: int) -> int:
            return min(pitch + 1, 20)


@breaks("schema-round-trip", says="Cannot generate a JsonSchema")
class Inexpressible(Chime):
    class params(ChimeParams):  # noqa: N801
        model_config = ConfigDict(arbitrary_types_allowed=True)
        extra: np.ndarray | None = Field(default=None, description="What.")


@breaks(
    "bounds",
    says="ChimeParams.pitch: expected 422 that names pitch for 21 (the largest is 20), got a request",
)
class Clamped(Chime):
    class params(ChimeParams):  # noqa: N801
        @field_validator("pitch", mode="before")
        @classmethod
        def clamp(cls, pitch: Any) -> Any:
            return min(max(pitch, 0), 20) if isinstance(pitch, int) else pitch


Clamped.params.__qualname__ = "ChimeParams"


@breaks("bad-input", says="422 that names a field which is unknown, got a request")
class Tolerant(Chime):
    class params(ChimeParams):  # noqa: N801
        model_config = ConfigDict(extra="ignore")


@breaks("bad-input", says="got 500, KeyError")
class Looking(Chime):
    class params(ChimeParams):  # noqa: N801
        @field_validator("voice", mode="before")
        @classmethod
        def look(cls, voice: Any) -> Any:
            return {"bell": "bell", "bowl": "bowl", "no such value": 1, 21: 1}[str(voice)]


@breaks("bad-input", says="422 that names body")
class Summing(Chime):
    class params(ChimeParams):  # noqa: N801
        @model_validator(mode="before")
        @classmethod
        def check(cls, body: Any) -> Any:
            if isinstance(body.get("pitch", 0), str):
                raise ValueError("no number")
            return body


@breaks("defaults", says="Media for an empty body")
class Demanding(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        if params.words is None:
            raise BadParams([FieldError("words", "some", "none")])
        return super().prepare(params, rng)


@breaks("defaults", says="others")
class Counting(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return (
            text(str(len(params.model_fields_set & set(ChimeParams.model_fields))))
            if media_type == "text/plain"
            else (wav(row["wave"], 8000 + len(params.model_fields_set & set(ChimeParams.model_fields))))
        )


@breaks("defaults", says="; the row has z, label, wave")
class Misspelt(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return (
            wav(row["waves"], 8000) if media_type == "audio/wav" else super().render(row, params, media_type)
        )


@breaks("defaults", says="by nought (faulty_params.py:")
class Broken(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        raise ZeroDivisionError("by nought")


@breaks(
    "extremes", says="ChimeParams.pitch: expected Media or BadParams for {'pitch': 20}, got ZeroDivisionError"
)
class Dividing(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return super().render(row, params.model_copy(update={"volume": 1 / (20 - params.pitch)}), media_type)


@breaks("extremes", says="ChimeParams.words")
class Ascii(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        (params.words or "").encode("ascii")
        return super().prepare(params, rng)


@breaks("params-kept")
class Appending(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        params.notes.append(1)
        return super().prepare(params, rng)
