"""Sampling: which token comes next, each row by its own wishes and its own random number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sampling", "Wish", "choose", "likeliest", "log_softmax"]

Row = NDArray[np.float32]

_LARGE = 2048
"""A larger vocabulary is added up by blocks: one by one would take longer than all else about a token's choice."""
_BLOCK = 128
"""Tokens in a block."""


class Sampling(NamedTuple):
    """How a request wants its tokens drawn; see `TextParams`."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float

    @property
    def penalises(self) -> bool:
        """Whether what was there before counts."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken as it is."""
        return self.temperature == 0 and not self.penalises

    @property
    def narrows(self) -> bool:
        """Whether not all tokens may be drawn."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


class Wish(NamedTuple):
    """One token that is wanted."""

    sampling: Sampling
    prompt: tuple[int, ...]
    made: tuple[int, ...]
    """Tokens that were made before."""
    uniform: float
    """The row's own random number for it, 0 <= uniform < 1."""


def choose(logits: NDArray[np.float32], wishes: Sequence[Wish]) -> list[int]:
    """The token of each row of `logits` [N, vocabulary]. What a row gets depends on itself alone."""
    penalised = [index for index, wish in enumerate(wishes) if wish.sampling.penalises]
    if penalised:
        logits = np.array(logits)
        for index in penalised:
            _penalise(logits[index], wishes[index])
    drawn = [index for index, wish in enumerate(wishes) if wish.sampling.temperature > 0]
    if len(drawn) == len(wishes):
        return _draw(logits, wishes)
    tokens: list[int] = logits.argmax(axis=1).tolist()
    if drawn:
        several = [wishes[index] for index in drawn]
        for index, token in zip(drawn, _draw(logits[drawn], several), strict=True):
            tokens[index] = token
    return tokens


def _draw(logits: NDArray[np.float32], wishes: Sequence[Wish]) -> list[int]:
    """One draw from the distribution of each row of `logits` [N, vocabulary], by its inverse."""
    weights = logits - logits.max(axis=1, keepdims=True)
    if any(wish.sampling.temperature != 1 for wish in wishes):
        temperatures = np.array([wish.sampling.temperature for wish in wishes], np.float32)[:, None]
        # One near 0 may make -inf of a large difference, whose exponential is the 0 that it should be.
        with np.errstate(over="ignore"):
            weights /= temperatures
    np.exp(weights, out=weights)  # the likeliest has 1
    for row, wish in zip(weights, wishes, strict=True):
        if wish.sampling.narrows:
            _narrow(row, wish.sampling)
    invert = _inverted if weights.shape[1] <= _LARGE else _inverted_by_blocks
    return invert(weights, [wish.uniform for wish in wishes])


def _inverted(weights: NDArray[np.float32], uniforms: Sequence[float]) -> list[int]:
    """The first token of each row at which the sum of `weights` [N, vocabulary] passes its share `uniforms` [N]."""
    sums: NDArray[np.float64] = weights.cumsum(axis=1, dtype=np.float64)
    return [_first_above(row, uniform * float(row[-1])) for row, uniform in zip(sums, uniforms, strict=True)]


def _inverted_by_blocks(weights: NDArray[np.float32], uniforms: Sequence[float]) -> list[int]:
    """As `_inverted`: among the sums of blocks first, and then within one. Only these are added up one by one."""
    rows, size = weights.shape
    padded: NDArray[np.float64] = np.zeros((rows, -(-size // _BLOCK) * _BLOCK))
    padded[:, :size] = weights
    blocks = np.reshape(padded, (rows, -1, _BLOCK))
    sums: NDArray[np.float64] = blocks.sum(axis=2).cumsum(axis=1)  # [N, blocks]
    tokens: list[int] = []
    for row, before, uniform in zip(blocks, sums, uniforms, strict=True):
        wanted = uniform * float(before[-1])
        block = _first_above(before, wanted)
        rest = wanted - float(before[block - 1]) if block else wanted
        tokens.append(block * _BLOCK + _first_above(row[block].cumsum(), rest))
    return tokens


def _first_above(sums: NDArray[np.float64], wanted: float) -> int:
    """Where `sums` [M], which do not fall, are above what is wanted for the first time.

    What is wanted may be all of it or more, since the sum of a block and what it comes to one by one are rounded apart:
    then where all of it is reached, which is no token that may not be drawn.
    """
    found = int(sums.searchsorted(wanted, side="right"))
    return found if found < len(sums) else int(sums.searchsorted(float(sums[-1])))


def _penalise(row: Row, wish: Wish) -> None:
    """The penalties of CTRL (Keskar et al. 2019) and of OpenAI's API, in place."""
    sampling = wish.sampling
    if sampling.repetition_penalty != 1:
        there = np.unique(np.array(wish.prompt + wish.made))
        values = row[there]
        row[there] = np.where(
            values > 0,
            values / np.float32(sampling.repetition_penalty),
            values * np.float32(sampling.repetition_penalty),
        )
    if wish.made:
        there, times = np.unique(np.array(wish.made), return_counts=True)
        row[there] -= np.float32(sampling.presence_penalty) + np.float32(sampling.frequency_penalty) * times


def _narrow(weights: Row, sampling: Sampling) -> None:
    """Set to 0 what may not be drawn: top-k (Fan et al. 2018), top-p (Holtzman et al. 2020), min-p (Nguyen et al.).

    The likeliest token always stays. Of tokens that are equally likely either all stay or none, but for top-p.
    """
    if 0 < sampling.top_k < len(weights):
        weights[weights < np.partition(weights, -sampling.top_k)[-sampling.top_k]] = 0
    if sampling.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        before: NDArray[np.float64] = np.cumsum(weights[order], dtype=np.float64)
        kept = int(np.searchsorted(before, sampling.top_p * float(before[-1]))) + 1
        weights[order[kept:]] = 0
    if sampling.min_p > 0:
        weights[weights < np.float32(sampling.min_p) * weights.max()] = 0


def log_softmax(logits: Row) -> NDArray[np.float64]:
    """The log probabilities of one row [vocabulary]."""
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def likeliest(logprobs: NDArray[np.float64], count: int) -> list[int]:
    """So many likeliest tokens, the likeliest first; the lower number goes before of equals."""
    return [int(token) for token in np.argsort(-logprobs, kind="stable")[:count]]
