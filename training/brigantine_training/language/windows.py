"""Windows: what a language model is shown, in an order that only the seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from .pieces import Pieces

__all__ = ["Windows"]

_OPENINGS = 1 / 16
"""Share of windows that begin as a text does: with the end of the one before, then the start of a paragraph."""


class Windows:
    """Endless batches of windows of a text: almost every token once per epoch, the cuts elsewhere in each.

    Args:
        pieces: the text.
        tokens: tokens of a window that are predicted; it holds one more.
        batch_windows: windows of a batch.
        end_of_text: the token that stands before a text.
        paragraph: the token of a line's end; two of them end a paragraph.
        seed: of everything that is drawn.
    """

    def __init__(
        self, pieces: Pieces, tokens: int, batch_windows: int, end_of_text: int, paragraph: int, seed: int
    ) -> None:
        self._pieces = pieces
        self._tokens = tokens
        self._batch_windows = batch_windows
        self._end_of_text = end_of_text
        self._paragraph = paragraph
        self._seed = seed
        self._epoch = -1
        self._position = 0
        self._share = 0.0
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def next(self, share: float) -> Tensor:
        """The next batch, int64 [batch_windows, tokens + 1]; an epoch that begins has `share` of its words respelt.

        The rest of an epoch that fills no batch is skipped.
        """
        if self._position + self._batch_windows > len(self._order):
            self._start_epoch(self._epoch + 1, share)
        starts = self._order[self._position : self._position + self._batch_windows]
        self._position += self._batch_windows
        opening = self._opening[starts]  # [batch_windows]: where the text that it opens begins, or -1
        first = np.where(opening >= 0, opening - 1, starts)
        batch = self._text[first[:, None] + np.arange(self._tokens + 1)]
        batch[opening >= 0, 0] = self._end_of_text
        return torch.from_numpy(batch)

    def _start_epoch(self, epoch: int, share: float) -> None:
        self._epoch, self._share, self._position = epoch, share, 0
        rng = np.random.default_rng([self._seed, epoch])
        self._text = self._pieces.encode(share, rng)  # [tokens of the text]
        last = len(self._text) - self._tokens - 1  # where the last whole window starts
        if (last + 1) // self._tokens < self._batch_windows:
            raise DataError(
                f"batch_windows={self._batch_windows} of {self._tokens} tokens are more than the text of "
                f"{len(self._text)} tokens."
            )
        offset = rng.integers(self._tokens)
        self._order = rng.permutation(np.arange(offset, last + 1, self._tokens))
        self._opening = self._openings(rng, last)

    def _openings(self, rng: np.random.Generator, last: int) -> NDArray[np.int64]:
        """For each place where a window may start [last + 1]: the start of its paragraph, or mostly -1."""
        ends = self._text == self._paragraph
        begins = np.flatnonzero(ends[:-1] & ends[1:]) + 2
        places = np.arange(last + 1)
        at = np.searchsorted(begins, places, side="right") - 1
        opened = (at >= 0) & (rng.random(last + 1) < _OPENINGS)
        return np.where(opened, begins[at] if len(begins) else -1, -1)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: the epoch, how it was spelt, and the position in it."""
        return {"epoch": self._epoch, "share": self._share, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""
        if state["epoch"] >= 0:
            self._start_epoch(state["epoch"], state["share"])
        self._epoch, self._position = state["epoch"], state["position"]
