"""A lane in a thread: runs the batches of one station, one after the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

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
    """See `brigantine.scheduler.Lane`.

    Args:
        station: makes the rows.
        parts_s: how long parts of what goes on may wait for those of the next steps.
    """

    ready = True

    def __init__(self, station: Station, parts_s: float = 0.0) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_report: Callable[[Report], None] = lambda report: None
        self._station = station
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._parts_s = parts_s
        self._untold: list[Report] = []
        self._told_s = 0.0
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def put(self, orders: Sequence[Order], gone: Sequence[int]) -> None:
        """As `Lane.put`."""
        self._tasks.put(_Task(asyncio.get_running_loop(), orders, gone))

    def close(self) -> None:
        """End after what was put, for which there is little patience."""
        self._tasks.put(None)
        self._thread.join(_PATIENCE_S)

    def _work(self) -> None:
        while task := self._tasks.get():
            self._tell(task.loop, self._station.advance(task.orders, task.gone))
            while self._station.is_running:
                if (tasks := self._waiting()) is None:
                    return
                if tasks and self._untold:
                    self._flush(task.loop)  # who joins may take long to prepare
                orders = [order for task in tasks for order in task.orders]
                gone = [job for task in tasks for job in task.gone]
                self._tell(task.loop, self._station.advance(orders, gone, len(tasks)))

    def _waiting(self) -> list[_Task] | None:
        """What was put while a step ran, without waiting for more; None at the end."""
        tasks: list[_Task] = []
        while not self._tasks.empty():
            task = self._tasks.get()
            if task is None:
                return None
            tasks.append(task)
        return tasks

    def _tell(self, loop: asyncio.AbstractEventLoop, report: Report) -> None:
        now = time.perf_counter()
        self._untold.append(report)
        quiet_s = self._parts_s if any(one.parts for one in self._untold) else _QUIET_S
        if not report.is_news and now - self._told_s < quiet_s:
            return
        self._told_s = now
        self._flush(loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        report = self._untold[0] if len(self._untold) == 1 else Report.joined(self._untold)
        self._untold = []
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self.on_report, report)
