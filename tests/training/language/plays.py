"""Small stand-ins for Shakespeare: a text with speeches that a tiny network learns from in a second."""

from __future__ import annotations

import random

from brigantine_training.config import LanguageConfig, make_config
from brigantine_training.language.corpus import Corpus

_WORDS = [
    "the",
    "king",
    "my",
    "lord",
    "shall",
    "come",
    "and",
    "go",
    "to",
    "love",
    "thee",
    "not",
    "but",
    "by",
    "this",
    "hand",
    "I",
    "will",
    "speak",
    "of",
    "war",
    "with",
    "France",
]


def written(lines: int, seed: int) -> str:
    """Speeches of so many lines in all."""
    source = random.Random(seed)
    parts: list[str] = []
    for _ in range(lines):
        if source.random() < 0.3:
            parts.append(f"\n{source.choice(('KING', 'QUEEN', 'Fool'))}:")
        parts.append(" ".join(source.choices(_WORDS, k=6)).capitalize() + source.choice(".,!?"))
    return "\n".join(parts).strip() + "\n"


def tiny_corpus(lines: int = 200) -> Corpus:
    """A text of about 35 characters a line, a fifth of it held out."""
    return Corpus(
        name="tinyshakespeare",
        train_text=written(lines, seed=1),
        test_text=written(lines // 4, seed=2),
        sha256="7" * 64,
        licence="CC0",
        source="written by the tests",
        about="the tests' plays",
        model="plays",
    )


def tiny_language_config(**changes: object) -> LanguageConfig:
    """The recipe with the smallest network, on one CPU thread, in float32, ended by steps."""
    values = {
        "dataset": "tinyshakespeare",
        "vocabulary": 288,
        "layers": 2,
        "heads": 2,
        "key_heads": 1,
        "width": 32,
        "inner_width": 48,
        "context_tokens": 32,
        "batch_windows": 4,
        "budget_seconds": None,
        "budget_steps": 20,
        "threads": 1,
        "device": "cpu",
        "precision": "float32",
    }
    config = make_config({**values, **changes}, "a test")
    assert isinstance(config, LanguageConfig)
    return config
