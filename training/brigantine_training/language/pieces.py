"""Pieces: a training text in tokens, its words cut in other places in each epoch (BPE-dropout).

Provilkov et al. 2020, arXiv:1910.13267: leave out merges at random, and a word is seen in many spellings. `tokenizers`
can do it, but not from a seed; here each word gets a few spellings once, and an epoch draws among them.
"""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .tokenizer import merges_of

__all__ = ["Pieces"]

_SPELLINGS = 12
"""Of each word, beside the usual one."""


class Pieces:
    """A text as words, each with its usual spelling in tokens and with others.

    Args:
        tokenizer: byte-level BPE.
        text: what is encoded.
        dropout: the share of merges that are left out in the other spellings.
        seed: of these.
    """

    def __init__(self, tokenizer: Tokenizer, text: str, dropout: float, seed: int) -> None:
        splitter = tokenizer.pre_tokenizer
        assert splitter is not None
        words = [word for word, _ in splitter.pre_tokenize_str(text)]
        index: dict[str, int] = {}
        self._words = np.array([index.setdefault(word, len(index)) for word in words])  # [words]
        self._others = _SPELLINGS if dropout else 0
        speller = _Speller(tokenizer)
        source = random.Random(seed)
        spellings: list[list[int]] = []
        for word in index:
            spellings.append(speller.spell(word))
            spellings += [speller.spell(word, dropout, source) for _ in range(self._others)]
        lengths = np.array([len(spelling) for spelling in spellings])
        self._flat = np.array([token for spelling in spellings for token in spelling])
        self._starts = np.cumsum(lengths) - lengths  # [distinct words * (1 + others)]
        self._lengths = lengths

    def encode(self, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """The whole text in tokens [tokens]; `share` of its words in one of their other spellings."""
        chosen = self._words * (1 + self._others)
        if self._others and share > 0:
            other = rng.integers(1, 1 + self._others, len(chosen))
            chosen = chosen + np.where(rng.random(len(chosen)) < share, other, 0)
        lengths = self._lengths[chosen]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)  # place of each token in its word
        return self._flat[np.repeat(self._starts[chosen], lengths) + within]


class _Speller:
    """Byte-pair encoding of one word (Sennrich et al. 2016, arXiv:1508.07909), with merges left out where asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ranks = {pair: rank for rank, pair in enumerate(merges_of(tokenizer))}
        self._ids = tokenizer.get_vocab()

    def spell(self, word: str, dropout: float = 0.0, source: random.Random | None = None) -> list[int]:
        """The tokens of `word`, which is written in the alphabet of bytes."""
        parts = list(word)
        while len(parts) > 1:
            pairs = [
                (self._ranks[pair], place)
                for place, pair in enumerate(pairwise(parts))
                if pair in self._ranks and not (source and source.random() < dropout)
            ]
            if not pairs:
                break
            _, place = min(pairs)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return [self._ids[part] for part in parts]
