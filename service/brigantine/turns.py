"""Turns on a GPU: many threads use it at a time, or one of them records a CUDA graph.

CUDA spoils a recording when another thread of the process allocates memory or waits meanwhile, and fails that thread's
call too.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["GPU", "Turns"]


class Turns:
    """Uses run beside each other; a recording runs alone, and the uses that come after it wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._recorders = 0

    @contextmanager
    def use(self) -> Generator[None]:
        """While nobody records."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recorders)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextmanager
    def record(self) -> Generator[None]:
        """While nobody else uses or records. Not within a `use` of the same thread, for which it would wait."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recorders)
            self._recorders = 1
            self._changed.wait_for(lambda: not self._users)
        try:
            yield
        finally:
            with self._changed:
                self._recorders = 0
                self._changed.notify_all()


GPU = Turns()
"""Of this process: whatever it does on a GPU takes its turn here."""
