"""Seeds: from a request's own to those of its rows, so that image 3 of 4 can be made again alone.

The seed of a row is what numpy's SeedSequence makes of the request's seed and the row's index (O'Neill's seed_seq,
https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html), whose output numpy promises never to change:

    SeedSequence(seed, spawn_key=(index,)).generate_state(1, numpy.uint64)[0] >> 11

What comes before the index is mixed once for all rows of a request, and the rest is done here: one SeedSequence for
each of 64 rows took as long as a twentieth of the pictures themselves.
"""

from __future__ import annotations

import numpy as np

__all__ = ["MAX_SEED", "derive_seed", "derive_seeds"]

MAX_SEED = 2**53 - 1
"""The largest seed: the largest integer that every JSON reader gets back exactly (RFC 8259, section 6)."""

_WORD = 2**32 - 1
_MIX_LEFT, _MIX_RIGHT = 0xCA01F9DD, 0x4973F715
_MIXED = 16
"""How many words SeedSequence has mixed before the index: each of four, and then each into the three others."""


def _powers(first: int, factor: int, skipped: int) -> list[int]:
    """The constants of two rounds, each `factor` times the one before."""
    return [first * pow(factor, skipped + index, _WORD + 1) & _WORD for index in range(3)]


_IN = _powers(0x43B0D7E5, 0x931E8875, _MIXED)
_OUT = _powers(0x8B51F9DD, 0x58F38DED, 0)


def derive_seed(seed: int, index: int) -> int:
    """The seed of row `index`, below 2**32, in a request with `seed`; row 0 has the request's own."""
    return derive_seeds(seed, range(index, index + 1))[0]


def derive_seeds(seed: int, indices: range) -> list[int]:
    """As `derive_seed`, for several rows."""
    if indices.stop <= 1:  # most requests
        return [seed for _ in indices]
    pool = [int(word) for word in np.random.SeedSequence(seed).pool[:2]]
    return [_derived(pool, index) if index else seed for index in indices]


def _derived(pool: list[int], index: int) -> int:
    """The index is mixed into the first two words of the pool, which are what comes out: the upper 53 of 64 bits."""
    low, high = (
        _hashed(_mixed(pool[word], _hashed(index, _IN[word], _IN[word + 1])), _OUT[word], _OUT[word + 1])
        for word in range(2)
    )
    return (high << 32 | low) >> 11


def _hashed(value: int, before: int, factor: int) -> int:
    value = (value ^ before) * factor & _WORD
    return value ^ value >> 16


def _mixed(one: int, other: int) -> int:
    value = _MIX_LEFT * one - _MIX_RIGHT * other & _WORD
    return value ^ value >> 16
