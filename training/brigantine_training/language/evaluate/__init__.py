"""How good a language model is: likelihood, memorisation, diversity, each beside what real text scores."""

from __future__ import annotations

from .judge import evaluate_language
from .measures import LANGUAGE_MEASURES
from .scores import CHARACTERS, bits_per_character, score_writer
from .writer import Writer

__all__ = [
    "CHARACTERS",
    "LANGUAGE_MEASURES",
    "Writer",
    "bits_per_character",
    "evaluate_language",
    "score_writer",
]
