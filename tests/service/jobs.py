"""A job that can be waited for without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from brigantine.model import Arrays
from brigantine.scheduler import Job


class Ask(Job[float]):
    """Asks for y of each of its values; what it gets is the sum over y's shape."""

    def __init__(self, *values: float, shape: tuple[int, ...] = (), size: int = 0) -> None:
        super().__init__(len(values), size)
        self.values = values
        self.done = threading.Event()
        self._shape = shape
        self._watch: Callable[[], object] = lambda: None

    def prepare(self, index: int) -> Arrays:
        return {"x": np.full(self._shape, self.values[index], np.float64)}

    def render(self, row: Arrays) -> float:
        return float(row["y"].sum())

    def watch(self, told: Callable[[], object]) -> None:
        """Call `told` when it is over."""
        self._watch = told

    def tell(self) -> None:
        self._watch()
        self.done.set()

    def answer(self) -> list[float]:
        """Its results, or the error that it failed with."""
        assert self.done.wait(10), "no answer within 10 s"
        if self.error is not None:
            raise self.error
        return self.results


def deliver(jobs: Sequence[Job[float]]) -> None:
    for job in jobs:
        assert isinstance(job, Ask)
        job.tell()
