"""Batch: rows of tokens over slots of a language model's cache, bound once, so that a run is only a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .session import Session
from .tensors import View
from .unmasking import LAST, MASK, ROOM

__all__ = ["IDS", "LOGITS", "POSITIONS", "Batch", "Lengths", "Mask", "Rows"]

IDS, POSITIONS, LOGITS = "input_ids", "position_ids", "logits"
"""What onnxruntime-genai and optimum call these."""

Rows = slice | list[int]
"""Which rows of a batch: all of them in their order, or these."""


class Mask:
    """Tells a graph which tokens of each row are there."""

    def __init__(self, rows: int, context: int, dtype: np.dtype[Any]) -> None:
        self._mask = np.zeros((rows, context), dtype)
        self._ends = [0] * rows  # of the ones in each row
        self._columns: NDArray[Any] = np.arange(context)
        self.arrays: dict[str, NDArray[Any]] = {MASK: self._mask}

    def write(self, past: Sequence[int], length: int) -> None:
        """Each row has `length` new tokens behind `past` others."""
        for row, start in enumerate(past):
            self._fill(row, start, start + length)

    def put(self, rows: Rows, past: Sequence[int]) -> None:
        """Each of these rows has one new token behind `past` others."""
        for row, start in zip(range(len(past)) if isinstance(rows, slice) else rows, past, strict=True):
            self._fill(row, start, start + 1)

    def _fill(self, row: int, start: int, end: int) -> None:
        if self._ends[row] == start:
            self._mask[row, start:end] = 1
        else:
            self._mask[row] = self._columns < end
        self._ends[row] = end


class Lengths:
    """Tells a graph that was written anew how many tokens of each row are there."""

    def __init__(self, rows: int, context: int) -> None:
        self._last = np.zeros(rows, np.int32)
        self.arrays: dict[str, NDArray[Any]] = {LAST: self._last, ROOM: np.asarray(context, np.int32)}

    def write(self, past: Sequence[int], length: int) -> None:
        """As `Mask.write`."""
        self._last[:] = past
        self._last += length - 1

    def put(self, rows: Rows, past: Sequence[int]) -> None:
        """As `Mask.put`."""
        self._last[rows] = past


class Batch:
    """So many rows of so many tokens over slots beside each other, bound once. `logits` may be another one's, too."""

    def __init__(
        self,
        session: Session,
        inputs: Mapping[str, View],
        outputs: Mapping[str, View],
        ids: NDArray[Any],
        logits: NDArray[Any],
        told: Mask | Lengths,
        has_positions: bool,
        record: bool,
    ) -> None:
        self._ids, self._logits, self._told = ids, logits, told
        self._positions = np.zeros_like(ids) if has_positions else None
        known = {IDS: ids, **told.arrays}
        if self._positions is not None:
            known[POSITIONS] = self._positions
        self.write(ids, [0] * len(ids))  # what can be recorded
        self._run: Callable[[], None] = session.bound(
            {name: View.of(array) for name, array in known.items()} | dict(inputs),
            {LOGITS: View.of(logits), **outputs},
            record,
        )

    def write(self, tokens: Sequence[Sequence[int]] | NDArray[Any], past: Sequence[int]) -> None:
        """All rows go on with T tokens each, `tokens` [N, T], behind as many as `past` [N] says."""
        length = self._ids.shape[1]
        self._ids[:] = tokens
        self._told.write(past, length)
        if self._positions is not None:
            self._positions[:] = [range(start, start + length) for start in past]

    def put(self, rows: Rows, tokens: Sequence[int], past: Sequence[int]) -> None:
        """These rows, of one token each, go on with these tokens, behind as many as `past` says."""
        self._ids[rows, 0] = tokens
        self._told.put(rows, past)
        if self._positions is not None:
            self._positions[rows, 0] = past

    def run(self) -> NDArray[Any]:
        """The logits [N, T, vocabulary] of all rows, until the next run."""
        self._run()
        return self._logits
