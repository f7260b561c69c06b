"""Scores: the figures of a language model, with intervals, beside what real text scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from brigantine.model import Score
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ...evaluate.scores import check_resamples, student_interval
from ..corpus import Corpus
from .likelihood import token_nats
from .measures import LANGUAGE_MEASURES
from .memory import Gram, distinct_share, grams_of, longest_copy, novel_share, words_of
from .writer import Writer

__all__ = ["CHARACTERS", "Texts", "bits_per_character", "bootstrap", "cut_like", "score_writer"]

CHARACTERS = 50_000
"""Of one draw. The longest copy grows with it and distinct-n falls, so it is stated with each."""

_NOVEL = 4
_RESAMPLES = 2000


class Texts:
    """What a draw of texts is measured against: the training text, its words and their sequences."""

    def __init__(self, train: str) -> None:
        words = words_of(train)
        self._train = train
        self._grams: dict[int, set[Gram]] = {length: set(grams_of(words, length)) for length in (1, _NOVEL)}

    def measure(self, pieces: Sequence[str]) -> dict[str, float]:
        """All figures of a draw, by their names."""
        return {
            "known_words": 1 - novel_share(pieces, self._grams[1], 1),
            "novel_4grams": novel_share(pieces, self._grams[_NOVEL], _NOVEL),
            "longest_copy": float(longest_copy(pieces, self._train)),
            "distinct_1": distinct_share(pieces, 1),
            "distinct_2": distinct_share(pieces, 2),
        }


def score_writer(
    writer: Writer, corpus: Corpus, console: Console, characters: int, resamples: int
) -> dict[str, Score]:
    """Read the whole held-out text, and draw `resamples` times `characters` characters.

    Args:
        writer: what is judged.
        corpus: what it is judged by.
        console: where progress is shown.
        characters: of one draw, at most those of the held-out text.
        resamples: 2 to 10; the figures of draws are means over them, their intervals by Student's t.

    Raises:
        ScoringError: `resamples` out of its bounds.
    """
    check_resamples(resamples)
    texts = Texts(corpus.train_text)
    draws: list[list[str]] = []
    for seed in track(range(resamples), "evaluating", console=console, transient=True):
        draws.append(writer.write(characters, seed))
    floors = texts.measure(cut_like(draws[0], corpus.test_text))
    figures = [texts.measure(draw) for draw in draws]
    scores = {"bits_per_character": bits_per_character(writer, corpus.test_text)}
    for name, floor in floors.items():
        mean, low, high = student_interval([row[name] for row in figures], LANGUAGE_MEASURES[name].highest)
        scores[name] = Score(value=mean, low=low, high=high, floor=round(floor, 5), samples=characters)
    return {name: scores[name] for name in LANGUAGE_MEASURES}


def bits_per_character(writer: Writer, text: str) -> Score:
    """Of the whole `text`; its interval is a bootstrap over windows of the context."""
    encoding = writer.tokenizer.encode(text)
    nats = token_nats(writer.predict, np.array(encoding.ids), writer.end_of_text, writer.context)
    starts = np.arange(0, len(nats), writer.context)
    ends = [*(encoding.offsets[start][0] for start in starts[1:]), len(text)]
    characters = np.diff([0, *ends])  # of each window
    bits = np.add.reduceat(nats, starts) / math.log(2)
    low, high = bootstrap(bits, characters)
    value = float(bits.sum() / characters.sum())
    value, low, high = (round(number, 5) for number in (value, low, high))
    return Score(value=value, low=low, high=high, floor=None, samples=len(text))


def bootstrap(bits: NDArray[np.float64], characters: NDArray[np.int64]) -> tuple[float, float]:
    """The 95% interval of the ratio of the sums, by drawing windows with replacement."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(bits), size=(_RESAMPLES, len(bits)))
    low, high = np.quantile(bits[chosen].sum(1) / characters[chosen].sum(1), (0.025, 0.975))
    return float(low), float(high)


def cut_like(pieces: Sequence[str], text: str) -> list[str]:
    """As many pieces of the same lengths out of `text`, spread over the whole of it, each from the start of a line."""
    room = (len(text) - sum(map(len, pieces))) / len(pieces)
    cut: list[str] = []
    start = 0.0
    for piece in pieces:
        line = text.rfind("\n", 0, int(start)) + 1
        cut.append(text[line : line + len(piece)])
        start += len(piece) + room
    return cut
