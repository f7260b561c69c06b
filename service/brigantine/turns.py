"""Turns on a GPU: many threads use it at a time, or one of them records a CUDA graph.

CUDA spoils a recording when another thread of the process allocates memory or waits meanwhile, and fails that thread's
call too.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["GPU", "Turns"]


_PATIENCE_S, _DRAIN_S = 20.0, 5.0
"""How long a recording waits for a moment in which nobody uses the GPU, and how long it then keeps others out."""


class Turns:
    """Uses run beside each other; a recording runs alone, and the uses that come after it wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._is_recording = False

    @contextmanager
    def use(self) -> Generator[None]:
        """While nobody records."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_recording)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextmanager
    def record(self) -> Generator[None]:
        """While nobody else uses or records. Not within a `use` of the same thread.

        Raises:
            TimeoutError: somebody uses it all the time; what comes next is kept out for a few seconds only.
        """
        with self._changed:
            self._changed.wait_for(lambda: not (self._users or self._is_recording), _PATIENCE_S)
            self._changed.wait_for(lambda: not self._is_recording)
            self._is_recording = True
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: not self._users, _DRAIN_S):
                    raise TimeoutError(
                        "the GPU is in use all the time, and nothing can be recorded beside that"
                    )
            yield
        finally:
            with self._changed:
                self._is_recording = False
                self._changed.notify_all()


GPU = Turns()
"""Of this process: whatever it does on a GPU takes its turn here."""
