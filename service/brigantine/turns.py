"""Turns on a GPU: many threads use it at a time, or one of them records a CUDA graph.

CUDA spoils a recording when another thread of the process allocates memory or waits meanwhile, and fails that thread's
call too; when one destroys what lies on the device, the process ends.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["GPU", "Turns"]


_PATIENCE_S, _DRAIN_S = 20.0, 5.0
"""How long a recording waits for a moment in which nobody uses the GPU, and how long it then keeps others out."""


class Turns:
    """Uses run beside each other; a recording runs alone, and the uses that come after it wait.

    An error that leaves either keeps nothing in the frames of its traceback, which may be dropped beside a recording.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # one that a thread cannot have twice: see `discard`
        self._changed = threading.Condition(self._lock)
        self._users = 0
        self._is_recording = False
        self._discarded: deque[list[Any]] = deque()

    @contextmanager
    def use(self) -> Generator[None]:
        """While nobody records."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_recording)
            self._users += 1
        try:
            yield
        except BaseException as error:
            _unframe(error)
            raise
        finally:
            with self._changed:
                self._empty()  # a recording may wait for the end of this
                self._users -= 1
                self._changed.notify_all()
            self._let_go()

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
        except BaseException as error:
            _unframe(error)
            raise
        finally:
            with self._changed:
                self._is_recording = False
                self._changed.notify_all()
            self._let_go()

    def discard(self, things: list[Any]) -> None:
        """Empty this list, which alone keeps what is in it, as soon as nobody records.

        It waits for nothing: the garbage collector may come to it anywhere, within a recording and in here, too.
        """
        self._discarded.append(things)
        self._let_go()

    def _let_go(self) -> None:
        """Unless somebody has the lock, who comes to this when they give it back."""
        while self._discarded and self._lock.acquire(blocking=False):
            try:
                if self._is_recording:
                    return
                self._empty()
            finally:
                self._lock.release()

    def _empty(self) -> None:
        while self._discarded:
            self._discarded.popleft().clear()


def _unframe(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


GPU = Turns()
"""Of this process: whatever it does on a GPU takes its turn here."""
