"""A film: an interpolation that is being drawn, one frame a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from brigantine import Arrays, Done
from numpy.typing import NDArray

__all__ = ["PATH", "Film"]

PATH = "path"
"""The name in a row for the latents of its frames, float32 [frames, ...]. A row of one picture has none."""


class Film(NamedTuple):
    """The state of a row between its steps. It is never changed: a step makes another one."""

    row: Arrays
    """As it was prepared, with its `PATH`."""
    drawn: tuple[NDArray[np.uint8], ...] = ()
    """The frames that are done, each [H, W, C]."""

    @classmethod
    def of(cls, state: Arrays | Film) -> Film | None:
        """The film that a state is, or begins; None for a row of one picture."""
        if isinstance(state, Film):
            return state
        return cls(state) if PATH in state else None

    def next_row(self) -> Mapping[str, NDArray[Any]]:
        """The input of the next frame, like that of a row of one picture."""
        row = {name: value for name, value in self.row.items() if name != PATH}
        return row | {"z": self.row[PATH][len(self.drawn)]}

    def with_frame(self, image: NDArray[np.uint8]) -> Film | Done:
        """The film after one more frame, `image` [H, W, C]. After the last one it is done, and has all of them as its
        `image` [frames, H, W, C].
        """
        drawn = (*self.drawn, np.array(image))  # a view would keep its whole batch alive
        if len(drawn) < len(self.row[PATH]):
            return Film(self.row, drawn)
        return Done({**self.row, "image": np.stack(drawn)})
