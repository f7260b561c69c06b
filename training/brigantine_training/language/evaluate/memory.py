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
        # What has a copy of some length has one of any smaller length: so it can be halved.
        low, high = longest, len(piece)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _copies(hashed, source, middle) else (low, middle - 1)
        longest = max(longest, low)
    return longest


class _Hashed:
    """A text with a rolling hash (Karp and Rabin 1987) of each of its spans."""

    def __init__(self, text: str) -> None:
        self.text = text
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64) + np.uint64(1)
        self._powers = _powers(_BASE, len(codes))
        self._back = _powers(_INVERSE, len(codes))
        self._sums = np.concatenate(
            [np.zeros(1, np.uint64), np.cumsum(codes * self._powers, dtype=np.uint64)]
        )

    def spans(self, length: int) -> NDArray[np.uint64]:
        """The hash of the span of `length` characters that starts at each place."""
        count = len(self.text) - length + 1
        return (self._sums[length:] - self._sums[: len(self._sums) - length]) * self._back[:count]


def _powers(base: np.uint64, count: int) -> NDArray[np.uint64]:
    factors = np.full(count, base)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _copies(piece: _Hashed, source: _Hashed, length: int) -> bool:
    if length > len(source.text):
        return False
    starts = np.flatnonzero(np.isin(piece.spans(length), source.spans(length)))
    return any(
        piece.text[start : start + length] in source.text for start in starts
    )  # equal hashes may be chance
