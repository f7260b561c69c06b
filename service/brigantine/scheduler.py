"""The scheduler: one model's queue, and the threads that empty it.

A thread takes a batch through all of its life: it prepares the rows, runs the plugin's step, and renders what
is done. It is work-conserving: a free thread takes its share of what waits at once, and what arrives while
the threads are busy forms the next batches. There are no timers and there is no polling. Rows join the
running ones and leave them between steps; content that is made at once is the case of one step.

A request of many rows may be spread over several batches and is put together again in order; an exception in
a batch fails only the request that causes it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .errors import BrigantineError, GenerationFailed, NotReady, QueueFull
from .model import Arrays
from .plugin import Done

__all__ = ["Job", "Scheduler"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_RETRY_AFTER_S = 120.0
"""Beyond this the official OpenAI client gives up instead of waiting."""


class Job(ABC, Generic[T]):
    """One request: how its rows begin and end, and what becomes of them.

    Args:
        rows: how many, at least one.
        size: the bytes that it holds while it waits.
    """

    def __init__(self, rows: int, size: int = 0) -> None:
        self.rows = rows
        self.size = size
        self.results: list[T] = []
        """In the order of the rows, once the job is over without an error."""
        self.error: BrigantineError | None = None
        self.batch_rows = 0
        """Rows in the largest batch that any of its rows ran in."""
        self.submitted_s = 0.0
        self.taken_s = 0.0
        """When the first row was taken from the queue."""
        self.started_s = 0.0
        """When the first step began."""
        self.computed_s = 0.0
        """When the last step ended."""
        self.ended_s = 0.0
        """When the last row was rendered."""
        self.over = False
        """Finished, failed or cancelled; only the scheduler sets it."""
        self.taken = 0
        """Rows that have left the queue."""
        self.rendered: dict[int, T] = {}
        """Finished rows by their index."""

    @abstractmethod
    def prepare(self, index: int) -> Any:
        """The first state of the row with this index. Runs in an inference thread."""

    @abstractmethod
    def render(self, row: Arrays) -> T:
        """What the sender gets for a finished row. Runs in an inference thread."""


@dataclass(eq=False, slots=True)
class _Row:
    """One running row of a job."""

    job: Job[Any]
    index: int
    state: Any


class Scheduler(Generic[T]):
    """Runs `step` on batches made of the rows of all waiting jobs.

    Args:
        step: takes the states of running rows one step further, as `Plugin.step`; called from several threads.
        deliver: told the jobs that are over, several at a time, by the thread that finished them.
        threads: how many batches are in the making at the same time.
        parallel: how many of these the device runs at once; waiting rows are divided by it.
        max_batch: the most rows in a batch.
        queue_rows: the most rows of all jobs that are not over.
        queue_bytes: the most bytes of these.
        leave: told the state of each row that leaves before it is done.
        on_batch: told the rows and the seconds of each step that ran.
    """

    def __init__(  # noqa: PLR0913 - each is one bound or one listener
        self,
        step: Callable[[Sequence[Any]], Sequence[Any]],
        deliver: Callable[[Sequence[Job[T]]], None],
        *,
        threads: int,
        max_batch: int,
        queue_rows: int,
        queue_bytes: int = 2**30,
        parallel: int | None = None,
        leave: Callable[[Any], None] = lambda state: None,
        on_batch: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._step = step
        self._deliver = deliver
        self._leave = leave
        self._on_batch = on_batch
        self._max_batch = max_batch
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._parallel = parallel or threads
        self._queue: OrderedDict[Job[T], None] = OrderedDict()  # in order of arrival, and quick to leave
        self._waiting = 0  # rows in the queue
        self._held = 0  # rows of all jobs that are not over
        self._held_bytes = 0
        self._row_s = 0.0  # seconds that one thread needs for one row, smoothed
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name="inference", daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait for a thread."""
        return self._waiting

    @property
    def held(self) -> int:
        """Rows of all jobs that are not over."""
        return self._held

    def submit(self, job: Job[T], within_s: float = math.inf) -> None:
        """Queue a job. `deliver` gets it when it is over, unless it is cancelled before.

        Args:
            job: of at least one row.
            within_s: how long its sender will wait. What cannot be done by then is refused now.

        Raises:
            QueueFull: its rows do not fit, or not in time; carries the seconds after which they may.
            NotReady: the scheduler is closed.
        """
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping; send the request to another replica, or again later")
            self._check_room(job, within_s)
            job.submitted_s = time.perf_counter()
            self._queue[job] = None
            self._waiting += job.rows
            self._held += job.rows
            self._held_bytes += job.size
            self._changed.notify(job.rows)

    def cancel(self, job: Job[T]) -> None:
        """Nobody waits for this job any more: its place is free at once, its running rows leave at the next step."""
        self._settle(job)

    def close(self) -> None:
        """Take no more work, finish what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _check_room(self, job: Job[T], within_s: float) -> None:
        rows, size = self._held + job.rows, self._held_bytes + job.size
        if rows > self._queue_rows or (self._held and size > self._queue_bytes):
            raise self._full(
                f"{self._held} rows are in work and {job.rows} more do not fit into a queue of {self._queue_rows} "
                f"rows and {self._queue_bytes} bytes"
            )
        # Measured on what ran last. An idle scheduler takes anything: a rate that was too low corrects itself.
        if self._held and (needed_s := self._seconds_for(rows)) > within_s:
            raise self._full(
                f"{self._held} rows are in work; {job.rows} more would be done in {needed_s:.2g} s, and the request "
                f"waits {within_s:.2g} s"
            )

    def _full(self, why: str) -> QueueFull:
        seconds = min(max(1.0, math.ceil(self._seconds_for(self._waiting))), _MAX_RETRY_AFTER_S)
        return QueueFull(f"{why}; try again in {seconds:.0f} s", seconds)

    def _seconds_for(self, rows: int) -> float:
        return rows * self._row_s / len(self._threads)

    def _work(self) -> None:
        running: list[_Row] = []
        busy_s = 0.0
        while True:
            taken = self._take(len(running))
            if not (taken or running):
                return
            begin = time.perf_counter()
            ended: list[Job[T]] = []
            running = self._wanted(running + self._prepared(taken, begin, ended))
            before = len(running)
            running = self._advance(running, ended)
            if ended:
                self._deliver(ended)
            busy_s += time.perf_counter() - begin
            if left := before - len(running):
                self._measure(busy_s / left)
                busy_s = 0.0

    def _take(self, running: int) -> list[_Row]:
        """This thread's share of what waits, in order of arrival. Waits only when nothing runs here.

        Empty with nothing running: the scheduler is closed.
        """
        with self._changed:
            while not (self._queue or running or self._closed):
                self._changed.wait()
            share = math.ceil(self._waiting / self._parallel)
            room = min(share, self._max_batch - running)
            rows: list[_Row] = []
            while len(rows) < room:
                job = next(iter(self._queue))
                take = min(job.rows - job.taken, room - len(rows))
                rows += [_Row(job, index, None) for index in range(job.taken, job.taken + take)]
                job.taken += take
                if job.taken == job.rows:
                    del self._queue[job]
            self._waiting -= len(rows)
        return rows

    def _prepared(self, rows: list[_Row], now: float, ended: list[Job[T]]) -> list[_Row]:
        """The rows that have got their first state; a job whose `prepare` raises fails alone."""
        prepared: list[_Row] = []
        for row in rows:
            row.job.taken_s = row.job.taken_s or now
            if row.job.over:
                continue
            try:
                row.state = row.job.prepare(row.index)
            except BaseException as error:  # a plugin may raise anything, and a thread must not end with it
                self._fail(row.job, _as_ours(error, "prepare"), ended)
            else:
                prepared.append(row)
        return prepared

    def _wanted(self, rows: list[_Row]) -> list[_Row]:
        """The rows that somebody still waits for; the others leave."""
        for row in rows:
            if row.job.over:
                self._leave(row.state)
        return [row for row in rows if not row.job.over]

    def _advance(self, rows: list[_Row], ended: list[Job[T]]) -> list[_Row]:
        """Run one step; what is done is rendered, and the others are returned.

        When it raises, its halves are run, until only the job that causes it is left.
        """
        if not rows:
            return rows
        begin = time.perf_counter()
        for row in rows:
            row.job.started_s = row.job.started_s or begin
        try:
            states = self._step([row.state for row in rows])
            if len(states) != len(rows):
                raise GenerationFailed(
                    f"step() must return a state for each of {len(rows)} rows, got {len(states)}"
                )
        except BaseException as error:
            return self._bisect(rows, error, ended)
        now = time.perf_counter()
        self._on_batch(len(rows), now - begin)
        for row, state in zip(rows, states, strict=True):
            row.state = state
            row.job.computed_s = now
            row.job.batch_rows = max(row.job.batch_rows, len(rows))
        for row in rows:
            if isinstance(row.state, Done) and not row.job.over:
                self._finish(row, ended)
        return [row for row in rows if not isinstance(row.state, Done)]

    def _bisect(self, rows: list[_Row], error: BaseException, ended: list[Job[T]]) -> list[_Row]:
        jobs = {row.job for row in rows}
        if len(jobs) == 1:
            self._fail(jobs.pop(), _as_ours(error, "step"), ended)
            return self._wanted(rows)
        middle = len(rows) // 2
        running = self._advance(rows[:middle], ended)
        return running + self._advance(self._wanted(rows[middle:]), ended)

    def _finish(self, row: _Row, ended: list[Job[T]]) -> None:
        job = row.job
        try:
            job.rendered[row.index] = job.render(row.state.row)
        except BaseException as error:
            self._fail(job, _as_ours(error, "render"), ended)
            return
        # Two threads may come here with the last two rows; only one of them settles.
        if len(job.rendered) == job.rows and self._settle(job):
            job.results = [job.rendered[index] for index in range(job.rows)]
            job.ended_s = time.perf_counter()
            ended.append(job)

    def _fail(self, job: Job[T], error: BrigantineError, ended: list[Job[T]]) -> None:
        if self._settle(job):
            job.error = error
            ended.append(job)

    def _settle(self, job: Job[T]) -> bool:
        """The job is over: its place is free, and its waiting rows are gone. False when it was over before."""
        with self._changed:
            if job.over:
                return False
            job.over = True
            self._held -= job.rows
            self._held_bytes -= job.size
            if job in self._queue:
                del self._queue[job]
                self._waiting -= job.rows - job.taken
            return True

    def _measure(self, row_s: float) -> None:
        self._row_s = 0.9 * self._row_s + 0.1 * row_s if self._row_s else row_s


def _as_ours(error: BaseException, step: str) -> BrigantineError:
    if isinstance(error, BrigantineError):
        return error
    failed = GenerationFailed(f"{step}() raised {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
