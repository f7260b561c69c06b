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
        self._found_none_s = -math.inf

    def take(self, spare: bool = False) -> int | None:
        """A core that nobody uses; None when there is none. `give` it back.

        Args:
            spare: none that may be free only between two batches of another worker: there must have been one whenever
                one was asked for in the last `_SPARE_S`, and nobody may do without.
        """
        now = time.monotonic()
        found = (core for core in range(self._count) if core not in self._mine and self._lock(core))
        core = next(found, None)
        if core is None:
            self._found_none_s = now
        elif spare and (now - self._found_none_s < _SPARE_S or self._is_shared()):
            self._unlock(core)
            return None
        else:
            self._mine.add(core)
        return core

    def share(self) -> int:
        """To be given back like a core, for who does without: until then nobody takes a spare one."""
        place = next(place for place in itertools.count(self._count) if place not in self._mine)
        self._mine.add(place)
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_SH, 1, self._count)
        return place

    def give(self, core: int) -> None:
        """A core that `take` has returned is free."""
        self._mine.remove(core)
        if core < self._count:
            self._unlock(core)
        elif not self._shares():
            self._unlock(self._count)

    def close(self) -> None:
        """Give all back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _shares(self) -> bool:
        return any(place >= self._count for place in self._mine)

    def _is_shared(self) -> bool:
        """Whether somebody does without a core."""
        if self._shares() or not self._lock(self._count):
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
