"""The cores of a machine, as all workers of a service share them.

A worker makes one batch of a model whenever there is something to do. It makes a second one beside that only with a
core that no worker uses: so a large request, or a busy worker, has what the others leave idle, and a core seldom has
two batches to switch between. A core is a byte of a file, and who uses it holds the lock on it, which the kernel takes
back from a process that dies (fcntl(2), "Advisory record locking"). The byte behind them is locked by all who do
without one.
"""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["Cores"]


_SPARE_S = 0.05
"""Longer than the moment in which a busy worker answers one batch and begins the next."""


class Cores:
    """Some cores. Belongs to one event loop.

    Args:
        count: how many there are.
        file: where the workers of this service lock them; None when there is no other worker.
    """

    def __init__(self, count: int, file: Path | None = None) -> None:
        self._count = count
        self._file = None if file is None else os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        self._mine: set[int] = set()
        self._others_have_s = -math.inf

    def take(self) -> int:
        """A core that nobody uses, or a number beyond them, which says that somebody does without. `give` it back."""
        core = self._found()
        return self._without() if core is None else core

    def take_spare(self, patient: bool = False) -> int | None:
        """A core for a batch beside another one, if there is one that nobody does without.

        Args:
            patient: none that may be free only between two batches of another worker, which was found to have it in the
                last `_SPARE_S`.
        """
        if self._is_wanted() or (core := self._found()) is None:
            return None
        if patient and time.monotonic() - self._others_have_s < _SPARE_S:
            self.give(core)
            return None
        return core

    @property
    def are_taken(self) -> bool:
        """Whether each of them has a batch. Who takes one in the moment in which it is looked at does without."""
        for core in range(self._count):
            if core not in self._mine and self._lock(core):
                self._unlock(core)
                return False
        return True

    def trade(self, core: int) -> int:
        """A core for who does without, if there is one by now; else what was given."""
        if core < self._count or (found := self._found()) is None:
            return core
        self.give(core)
        return found

    def give(self, core: int) -> None:
        """A core is free, or somebody does without no more."""
        self._mine.remove(core)
        if core < self._count:
            self._unlock(core)
        elif max(self._mine, default=0) < self._count:
            self._unlock(self._count)

    def close(self) -> None:
        """Give all back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _found(self) -> int | None:
        for core in range(self._count):
            if core not in self._mine and self._lock(core):
                self._mine.add(core)
                return core
        if not self._mine.issuperset(range(self._count)):
            self._others_have_s = time.monotonic()
        return None

    def _without(self) -> int:
        place = next(place for place in itertools.count(self._count) if place not in self._mine)
        self._mine.add(place)
        if self._file is not None:
            with suppress(BlockingIOError):  # somebody looks at this moment
                fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, self._count)
        return place

    def _is_wanted(self) -> bool:
        """Whether somebody does without a core."""
        if max(self._mine, default=0) >= self._count or not self._lock(self._count):
            return True
        self._unlock(self._count)
        return False

    def _lock(self, core: int) -> bool:
        if self._file is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, core)
        except BlockingIOError:
            return False
        return True

    def _unlock(self, core: int) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, core)
