"""A lane in a thread: runs the batches of one station, one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from .station import Order, Report, Station

__all__ = ["ThreadLane"]


_PATIENCE_S = 10.0


class _Task(NamedTuple):
    loop: asyncio.AbstractEventLoop
    orders: Sequence[Order]
    gone: Sequence[int]
    told: Callable[[Report], None]


class ThreadLane:
    """See `brigantine.scheduler.Lane`."""

    ready = True

    def __init__(self, station: Station) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self._station = station
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def put(self, orders: Sequence[Order], gone: Sequence[int], told: Callable[[Report], None]) -> None:
        """As `Lane.put`."""
        self._tasks.put(_Task(asyncio.get_running_loop(), orders, gone, told))

    def close(self) -> None:
        """End after what was put, for which there is little patience."""
        self._tasks.put(None)
        self._thread.join(_PATIENCE_S)

    def _work(self) -> None:
        while task := self._tasks.get():
            report = self._station.advance(task.orders, task.gone)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                task.loop.call_soon_threadsafe(task.told, report)
