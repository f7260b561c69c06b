"""Shares: how many connections each worker of a service has, as all of them know it."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Shares"]

_MOST_WORKERS = 1024
_NUMBER = "i"
_NUMBER_BYTES = 4


class Shares:
    """The numbers of all workers, of which this process has one.

    A worker's number is one of a file; the lock on it, which the kernel takes back from a process that dies, says that
    there is somebody behind it.

    Args:
        file: the service's own.
    """

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, _MOST_WORKERS * _NUMBER_BYTES)
        memory = mmap.mmap(self._file, _MOST_WORKERS * _NUMBER_BYTES)
        self._numbers = memoryview(memory).cast(_NUMBER)  # of connections, and one more; 0 for nobody
        self._mine = next(filter(self._lock, range(_MOST_WORKERS)), None)
        self.leave()  # who had it before has died

    def tell(self, count: int) -> None:
        """This worker has so many."""
        if self._mine is not None:
            self._numbers[self._mine] = count + 1

    def leave(self) -> None:
        """This worker takes no more."""
        if self._mine is not None:
            self._numbers[self._mine] = 0

    def fewest(self) -> float:
        """How many the other worker has that has the fewest; infinity without another one."""
        numbers = self._numbers.tolist()
        return min(
            (number - 1 for slot, number in enumerate(numbers) if number and slot != self._mine),
            default=math.inf,
        )

    def sweep(self) -> None:
        """Forget the workers that have died."""
        for slot, number in enumerate(self._numbers.tolist()):
            if number and slot != self._mine and self._lock(slot):
                self._numbers[slot] = 0
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)

    def _lock(self, slot: int) -> bool:
        with suppress(BlockingIOError, PermissionError):
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            return True
        return False
