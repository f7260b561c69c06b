"""Provenance of a language model: how it came about and how it was judged."""

from __future__ import annotations

from pydantic import BaseModel

from ..provenance import Provenance, TrainingData

__all__ = ["LanguageProvenance", "TextData", "TextProtocol"]


class TextData(TrainingData, frozen=True):
    """The text that a language model was trained on and judged by."""

    train_characters: int
    test_characters: int


class TextProtocol(BaseModel, frozen=True):
    """How the scores of texts were made; scores of another protocol do not compare."""

    context_tokens: int
    """Tokens of a window of the held-out text; windows do not overlap."""
    test_tokens: int
    characters: int
    """Of one draw, and of the real text of a floor."""
    resamples: int
    piece_tokens: int
    """Of one piece of a draw, which is written from nothing."""
    references: dict[str, float]
    """Bits per character of the held-out text under models that anyone can make of the training text."""


class LanguageProvenance(Provenance, frozen=True):
    """How a language model came about."""

    tokens_seen: int
    parameters: int
    data: TextData
    evaluation: TextProtocol | None = None
