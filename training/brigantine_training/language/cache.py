"""Cache: an exported language model that remembers what it has read."""

from __future__ import annotations

from typing import Any

import numpy as np
from brigantine.session import Session
from numpy.typing import NDArray

__all__ = ["Cache"]


class Cache:
    """A batch of texts that grow by as many tokens each; the keys and values of what was read are kept.

    Args:
        session: of a graph as `graph.py` makes it.
        rows: texts in the batch.
    """

    def __init__(self, session: Session, rows: int) -> None:
        self._session = session
        self._rows = rows
        self._length = 0
        self._past: dict[str, NDArray[Any]] = {
            spec.name: np.zeros((rows, int(spec.shape[1]), 0, int(spec.shape[3])), np.float32)  # [N, H, 0, D]
            for spec in session.model.manifest.inputs
            if spec.name.startswith("past_key_values.")
        }

    def run(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read ids [N, T]; the logits [N, T, vocabulary] of what follows each."""
        self._length += ids.shape[1]
        mask = np.ones((self._rows, self._length), np.int64)
        made = self._session.run({"input_ids": ids, "attention_mask": mask, **self._past})
        self._past = {name: made[name.replace("past_key_values", "present")] for name in self._past}
        return made["logits"]
