"""A lane in a thread: runs the batches of one station, one after the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from .intake import Intake
from .station import Order, Report, Station

__all__ = ["ThreadLane"]


_PATIENCE_S = 10.0
_QUIET_S = 0.02
"""How long steps that bring nothing are not reported: waking the event loop takes as long as a small step."""


class _Task(NamedTuple):
    loop: asyncio.AbstractEventLoop
    orders: Sequence[Order]
    gone: Sequence[int]


class ThreadLane:
    """See `brigantine.work.Lane`.

    Args:
        station: makes the rows.
        max_batch: the most rows in a batch.
        parts_s: how long parts of what goes on may wait for those of the next steps.
    """

    ready = True

    def __init__(self, station: Station, max_batch: int, parts_s: float = 0.0) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_report: Callable[[Report], None] = lambda report: None
        self._station = station
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._intake = Intake(max_batch)
        self._parts_s = parts_s
        self._loop: asyncio.AbstractEventLoop
        self._untold: list[Report] = []
        self._told_s = 0.0
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def put(self, orders: Sequence[Order], gone: Sequence[int]) -> None:
        """As `Lane.put`."""
        self._tasks.put(_Task(asyncio.get_running_loop(), orders, gone))

    def close(self) -> None:
        """End. What has not been begun is not made; for what has, there is little patience."""
        self._tasks.put(None)
        self._thread.join(_PATIENCE_S)

    def _work(self) -> None:
        while self._hears():
            taken = self._intake.take(self._station.running)
            if taken.orders and self._untold:
                self._flush()  # who joins may take long to prepare
            self._tell(self._station.advance(*taken))

    def _hears(self) -> bool:
        """Take in all that was put meanwhile; waits for it where there is nothing else to do. False at the end."""
        is_busy = bool(self._station.running) or not self._intake.is_empty
        while not is_busy or not self._tasks.empty():
            task = self._tasks.get()
            if task is None:
                return False
            self._loop = task.loop
            self._intake.add(task.orders, task.gone)
            is_busy = True
        return True

    def _tell(self, report: Report) -> None:
        now = time.perf_counter()
        self._untold.append(report)
        quiet_s = self._parts_s if any(one.parts for one in self._untold) else _QUIET_S
        if not report.is_news and now - self._told_s < quiet_s:
            return
        self._told_s = now
        self._flush()

    def _flush(self) -> None:
        report = self._untold[0] if len(self._untold) == 1 else Report.joined(self._untold)
        self._untold = []
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self.on_report, report)
