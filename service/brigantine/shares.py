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
        os.posix_fallocate(
            self._file, 0, _MOST_WORKERS * _NUMBER_BYTES
        )  # a hole in a full disk kills who writes
        memory = mmap.mmap(self._file, _MOST_WORKERS * _NUMBER_BYTES)
        self._numbers = memoryview(memory).cast(_NUMBER)  # of connections, and one more; 0 for nobody
        self._mine = next(filter(self._lock, range(_MOST_WORKERS)))
        self.leave()  # who had it before has died

    def tell(self, count: int) -> None:
        """This worker has so many."""
        self._numbers[self._mine] = count + 1

    def leave(self) -> None:
        """This worker takes no more."""
        self._numbers[self._mine] = 0

    def fewest(self) -> float:
        """How many the other worker has that has the fewest; infinity without another one."""
        numbers = self._numbers.tolist()
        numbers[self._mine] = 0
        return min(filter(None, numbers), default=math.inf) - 1

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
