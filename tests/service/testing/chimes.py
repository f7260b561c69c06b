"""Two plugins that keep every rule: one that is made at once, and one that is made in steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from brigantine import Arrays, Done, Media, Params, Plugin, text, wav
from brigantine.testing import TensorSpec, tiny_onnx
from pydantic import Field

Digit = Annotated[int, Field(ge=0, le=9)]


def chime_model(folder: Path) -> Path:
    """A model for all plugins here."""
    z = TensorSpec(name="z", dtype="float32", shape=("batch", 4))
    label = TensorSpec(name="label", dtype="int64", shape=("batch",))
    wave = TensorSpec(name="wave", dtype="float32", shape=("batch", 64))
    return tiny_onnx(folder, "chimes", "chime", [z, label], [wave], ["bell", "bowl"])


class ChimeParams(Params):
    """What a chime may be asked for."""

    pitch: int = Field(default=10, ge=0, le=20, description="How high.")
    volume: float = Field(default=0.5, gt=0, le=1, description="How loud.")
    voice: Literal["bell", "bowl"] = Field(default="bell", description="What is struck.")
    words: str | None = Field(default=None, max_length=20, description="What is said beside.")
    notes: list[Digit] = Field(default=[1], max_length=4, description="What is played.")


class Chime(Plugin[Any]):
    """Made at once."""

    name = "chime"
    content = "audio"
    types = ("audio/wav", "text/plain")
    params = ChimeParams

    def prepare(self, params: Any, rng: np.random.Generator) -> Arrays:
        return {
            "z": rng.standard_normal(4, dtype=np.float32),
            "label": np.int64(("bell", "bowl").index(params.voice)),  # type: ignore[dict-item]
        }

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        wave = row["wave"] * np.float32(params.volume)  # [64]
        if media_type == "text/plain":
            return text(" ".join(f"{sample:.4f}" for sample in wave), pitch=params.pitch)
        return wav(wave, 8000 + params.pitch, pitch=params.pitch)


class RhymeParams(Params):
    """What a rhyme may be asked for."""

    words: int = Field(default=3, ge=1, le=9, description="How many words.")


class Verse(NamedTuple):
    """A rhyme that is being made."""

    noise: Any
    left: int
    said: tuple[str, ...] = ()

    @classmethod
    def of(cls, state: Arrays | Verse) -> Verse:
        return state if isinstance(state, Verse) else cls(state["noise"], int(state["words"]))

    def longer(self) -> Verse | Done:
        word = "abcdefgh"[self.noise[len(self.said)]]
        after = Verse(self.noise, self.left - 1, (*self.said, word))
        return after if after.left else Done({"said": np.asarray(" ".join(after.said))})


class Rhyme(Plugin[Any]):
    """Made in steps, one for each word."""

    name = "rhyme"
    content = "text"
    types = ("text/plain",)
    params = RhymeParams

    def prepare(self, params: Any, rng: np.random.Generator) -> Arrays:
        return {"noise": rng.integers(0, 8, 9), "words": np.asarray(params.words)}

    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        return [Verse.of(state).longer() for state in states]

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return text(str(row["said"]))
