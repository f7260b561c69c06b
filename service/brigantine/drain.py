"""Drain: how a worker ends when it is asked to.

It says at once that it is not ready, and takes no new work, but goes on answering for a moment, so that a load balancer
hears of it from the service and not from a connection that breaks. Then it closes its door; what is under way is
finished, until there is no more time for it.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from .settings import Settings
from .shared import Shared

__all__ = ["Drain", "end_when_asked", "end_with_parent", "leaving_at_once"]

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_BREAK_S = 1.0
"""Between the end of all work and that of connections on which something is still under way."""


def _leave(_signal: int, _frame: object) -> None:
    os._exit(0)


def end_when_asked() -> None:
    """A start that is asked to stop ends at once; the first process of a container would not heed a SIGTERM."""
    signal.signal(signal.SIGTERM, _break_off)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _break_off(number: int, _frame: object) -> None:
    os._exit(128 + number)  # as a shell says it; a SystemExit would be taken for that of a plugin


def end_with_parent() -> None:
    """A worker whose supervisor is killed is asked to end, too; it would hold the address for good."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def leaving_at_once() -> Generator[None]:
    """Within this, a SIGTERM ends the process at once: nobody waits for it, since it has not answered anything yet."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    if getattr(getattr(before, "__self__", None), "should_exit", False):
        os._exit(0)  # uvicorn has been asked just before, and would have all loaded first
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Drain:
    """Waits for a SIGTERM, in the event loop of the server that has set its own handler for it before.

    Args:
        settings: how long.
        shared: says whether the whole service stops.
        refuse: makes the service say that it stops, and take no new work.
        give_up: fails what is not finished.
    """

    def __init__(
        self, settings: Settings, shared: Shared, refuse: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._shared = shared
        self._refuse = refuse
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._server: Any = signal.getsignal(signal.SIGTERM)
        self._begun = False
        self._answers = shared.answer()
        self._loop.add_signal_handler(signal.SIGTERM, self._begin)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        notice_s = 0.0
        if self._shared.stopping:
            notice_s = min(self._settings.lame_duck_seconds, self._settings.drain_seconds)
            self._refuse()
        log.info("worker %d finishes what is under way", os.getpid())
        self._loop.call_later(notice_s, self._close)
        self._loop.call_later(self._settings.drain_seconds, self._end)

    def _close(self) -> None:
        """Leave the door to the other workers, or to the doorman."""
        os.close(self._answers)
        if not callable(self._server):
            return
        config = getattr(getattr(self._server, "__self__", None), "config", None)  # uvicorn's
        if config is not None:  # else it would wait for as long as a client holds its connection
            config.timeout_graceful_shutdown = self._settings.drain_seconds + _BREAK_S
        self._server(signal.SIGTERM, None)

    def _end(self) -> None:
        log.warning(
            "what is not finished after %g s (BRIGANTINE_DRAIN_SECONDS) is given up",
            self._settings.drain_seconds,
        )
        self._give_up()
