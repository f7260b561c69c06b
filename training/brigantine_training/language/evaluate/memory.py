"""Memory: how much of a text stands in another one as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["distinct_share", "longest_copy", "novel_share", "words_of"]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2 ** 64
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))

Gram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of a text in small letters, without the marks around them."""
    bare = (word.strip(".,;:!?'\"()[]-&") for word in text.lower().replace("--", " ").split())
    return [word for word in bare if word]


def novel_share(pieces: Iterable[str], known: set[Gram], length: int) -> float:
    """The share of the pieces' sequences of `length` words that are not `known`."""
    grams = [gram for piece in pieces for gram in grams_of(words_of(piece), length)]
    return sum(gram not in known for gram in grams) / max(len(grams), 1)


def distinct_share(pieces: Iterable[str], length: int) -> float:
    """Different sequences of `length` words as a share of all; it falls as the text grows."""
    grams = [gram for piece in pieces for gram in grams_of(words_of(piece), length)]
    return len(set(grams)) / max(len(grams), 1)


def grams_of(words: list[str], length: int) -> Iterator[Gram]:
    """All sequences of `length` successive words."""
    return zip(*(words[start:] for start in range(length)), strict=False)


def longest_copy(pieces: Iterable[str], text: str) -> int:
    """Characters of the longest span of a piece that `text` holds."""
    source = _Hashed(text)
    longest = 0
    for piece in pieces:
        hashed = _Hashed(piece)
        if not _copies(hashed, source, longest + 1):
            continue
        # What has a copy of some length has one of any smaller length: so the rest can be halved.
        longest, high = longest + 1, len(piece)
        while longest < high:
            middle = (longest + high + 1) // 2
            longest, high = (middle, high) if _copies(hashed, source, middle) else (longest, middle - 1)
    return longest


class _Hashed:
    """A text with a rolling hash (Karp and Rabin 1987) of each of its spans."""

    def __init__(self, text: str) -> None:
        self.text = text
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64) + np.uint64(1)
        sums = np.cumsum(codes * _powers(_BASE, len(codes)), dtype=np.uint64)
        self._sums = np.concatenate([np.zeros(1, np.uint64), sums])
        self._back = _powers(_INVERSE, len(codes))
        self._sorted: dict[int, NDArray[np.uint64]] = {}

    def spans(self, length: int) -> NDArray[np.uint64]:
        """The hash of the span of `length` characters that starts at each place."""
        count = len(self.text) - length + 1
        return (self._sums[length:] - self._sums[:count]) * self._back[:count]

    def sorted_spans(self, length: int) -> NDArray[np.uint64]:
        """The same in order, kept for each length that is asked for: many pieces ask for the same."""
        if length not in self._sorted:
            self._sorted[length] = np.sort(self.spans(length))
        return self._sorted[length]


def _powers(base: np.uint64, count: int) -> NDArray[np.uint64]:
    factors = np.full(count, base)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _copies(piece: _Hashed, source: _Hashed, length: int) -> bool:
    """Whether `source` holds a span of `length` characters of `piece`."""
    if length > min(len(piece.text), len(source.text)):
        return False
    spans, known = piece.spans(length), source.sorted_spans(length)
    place = np.minimum(np.searchsorted(known, spans), len(known) - 1)
    starts = np.flatnonzero(known[place] == spans)
    # Equal hashes may be chance.
    return any(piece.text[start : start + length] in source.text for start in starts)
