"""The scheduler: one model's queue, and the threads that empty it.

It is work-conserving: a free thread takes its share of what waits at once, and what arrives while the
threads are busy forms the next batches. There are no timers and there is no polling. A request of many
rows may be spread over several batches and is put together again in order; an exception in a batch fails
only the request that causes it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .errors import BrigantineError, GenerationFailed, NotReady, QueueFull
from .model import Arrays

__all__ = ["Batched", "Scheduler", "run_batch"]

log = logging.getLogger(__name__)

Generate = Callable[[Arrays], Arrays]

_MAX_RETRY_AFTER_S = 120.0
"""Beyond this the official OpenAI client gives up instead of waiting."""


class Batched(NamedTuple):
    """A request's rows, generated."""

    rows: list[Arrays]
    queue_s: float
    """Seconds from submission until the first row was taken."""
    compute_s: float
    """Seconds from then until the last row was done."""
    batch_rows: int
    """Rows in the largest batch that any of them ran in."""


@dataclass(eq=False, slots=True)
class _Job:
    """One request: its rows as they wait, and as they come back."""

    rows: Sequence[Arrays]
    future: Future[Batched] = field(default_factory=Future[Batched])
    done: dict[int, Arrays] = field(default_factory=dict[int, Arrays])
    submitted_s: float = field(default_factory=time.perf_counter)
    taken_s: float = 0.0
    batch_rows: int = 0

    @property
    def row_bytes(self) -> int:
        return sum(array.nbytes for array in self.rows[0].values())

    def finish(self, index: int, row: Arrays, batch_rows: int) -> None:
        self.done[index] = row
        self.batch_rows = max(self.batch_rows, batch_rows)
        if len(self.done) == len(self.rows):
            now = time.perf_counter()
            rows = [self.done[i] for i in range(len(self.rows))]
            self._settle(
                lambda: self.future.set_result(
                    Batched(rows, self.taken_s - self.submitted_s, now - self.taken_s, self.batch_rows)
                )
            )

    def fail(self, error: BaseException) -> None:
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        try:
            settle()
        except InvalidStateError:
            log.debug("an answer came after its request had been cancelled or failed")


_Ticket = tuple[_Job, int]
"""One row of one job: what waits in the queue."""


class Scheduler:
    """Runs `generate` on batches made of the rows of all waiting requests.

    Args:
        generate: takes a batch [N, ...] and returns one; called from several threads at once.
        threads: how many batches run at the same time.
        max_batch: the most rows in a batch.
        queue_rows: the most rows that may wait.
        queue_bytes: the most bytes of input that may wait.
        on_batch: told the rows and the seconds of each batch that ran.
    """

    def __init__(
        self,
        generate: Generate,
        *,
        threads: int,
        max_batch: int,
        queue_rows: int,
        queue_bytes: int = 2**30,
        on_batch: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._generate = generate
        self._max_batch = max_batch
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._on_batch = on_batch
        self._queue: deque[_Ticket] = deque()
        self._queued_bytes = 0
        self._running = 0
        self._changed = threading.Condition()
        self._closed = False
        self._row_s = 0.0  # seconds that one thread needs for one row, smoothed over batches
        self._threads = [
            threading.Thread(target=self._work, name="inference", daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait for a thread."""
        return len(self._queue)

    def submit(self, rows: Sequence[Arrays], within_s: float = math.inf) -> Future[Batched]:
        """Queue a request's rows. Cancel the future to take back what no thread has taken yet.

        Args:
            rows: at least one, each named arrays without the batch axis.
            within_s: how long the caller will wait. What cannot be done by then is refused now.

        Raises:
            QueueFull: the rows do not fit, or not in time; carries the seconds after which they may.
            NotReady: the scheduler is closed.
        """
        job = _Job(rows)
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping; send the request to another replica, or again later")
            self._check_room(job, within_s)
            self._queue.extend((job, index) for index in range(len(rows)))
            self._queued_bytes += job.row_bytes * len(rows)
            self._changed.notify(len(rows))
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        return job.future

    def full(self, taken: int, more: int) -> QueueFull:
        """What to say when `taken` rows are there and `more` do not fit."""
        return QueueFull(
            f"{taken} rows wait and {more} more do not fit into a queue of {self._queue_rows} rows and "
            f"{self._queue_bytes} bytes; try again in {self._retry_after_s():.0f} s",
            self._retry_after_s(),
        )

    def close(self) -> None:
        """Take no more work, finish what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _check_room(self, job: _Job, within_s: float) -> None:
        rows, size = len(self._queue) + len(job.rows), self._queued_bytes + job.row_bytes * len(job.rows)
        if rows > self._queue_rows or (self._queue and size > self._queue_bytes):
            raise self.full(len(self._queue), len(job.rows))
        # Measured on what ran last. An idle scheduler takes anything: a rate that was too low corrects itself.
        busy = self._running or self._queue
        if busy and (needed_s := self._seconds_for(rows)) > within_s:
            raise QueueFull(
                f"{len(self._queue)} rows wait; {len(job.rows)} more would be done in {needed_s:.2g} s, and the "
                f"request waits {within_s:.2g} s; try again in {self._retry_after_s():.0f} s",
                self._retry_after_s(),
            )

    def _work(self) -> None:
        while tickets := self._take():
            self._run(tickets)
            with self._changed:
                self._running -= 1

    def _take(self) -> list[_Ticket]:
        """This thread's share of what waits, in order of arrival; empty when the scheduler is closed."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            share = math.ceil(len(self._queue) / len(self._threads))
            tickets = [self._queue.popleft() for _ in range(min(share, self._max_batch))]
            self._queued_bytes -= sum(job.row_bytes for job, _ in tickets)
            self._running += bool(tickets)
        now = time.perf_counter()
        for job, _ in tickets:
            job.taken_s = job.taken_s or now
        return tickets

    def _run(self, tickets: list[_Ticket]) -> None:
        """Run a batch; when it raises, run its halves, until only the request that causes it is left."""
        begin = time.perf_counter()
        try:
            rows = run_batch(self._generate, [job.rows[index] for job, index in tickets])
        except Exception as error:
            self._bisect(tickets, error)
            return
        self._measure(len(tickets), time.perf_counter() - begin)
        for (job, index), row in zip(tickets, rows, strict=True):
            job.finish(index, row, len(tickets))

    def _bisect(self, tickets: list[_Ticket], error: Exception) -> None:
        jobs = {job for job, _ in tickets}
        if len(jobs) == 1:
            job = jobs.pop()
            job.fail(_as_ours(error))
            self._forget(job)  # its other rows would be work for nothing
            return
        middle = len(tickets) // 2
        self._run(tickets[:middle])
        self._run(tickets[middle:])

    def _measure(self, rows: int, seconds: float) -> None:
        self._on_batch(rows, seconds)
        latest = seconds / rows
        self._row_s = 0.9 * self._row_s + 0.1 * latest if self._row_s else latest

    def _seconds_for(self, rows: int) -> float:
        return rows * self._row_s / len(self._threads)

    def _retry_after_s(self) -> float:
        return min(max(1.0, math.ceil(self._seconds_for(len(self._queue)))), _MAX_RETRY_AFTER_S)

    def _forget(self, job: _Job) -> None:
        with self._changed:
            kept = deque(ticket for ticket in self._queue if ticket[0] is not job)
            self._queued_bytes -= job.row_bytes * (len(self._queue) - len(kept))
            self._queue = kept


def run_batch(generate: Generate, rows: Sequence[Arrays]) -> list[Arrays]:
    """Stack rows to a batch [N, ...], generate, and split the result; each row keeps its input beside its output.

    Raises:
        GenerationFailed: the rows do not stack, or an output does not have as many rows as the input.
    """
    names = rows[0].keys()
    try:
        batch = {name: np.stack([row[name] for row in rows]) for name in names}  # each [N, ...]
    except (KeyError, ValueError) as error:
        raise GenerationFailed(
            f"prepare() must give the same names and shapes for every row: {error}"
        ) from error
    outputs = generate(batch)
    for name, values in outputs.items():
        if len(values) != len(rows):
            raise GenerationFailed(
                f"generate() must return as many rows as it is given: {name} has {len(values)} for {len(rows)}"
            )
    return [
        {**row, **{name: values[index] for name, values in outputs.items()}} for index, row in enumerate(rows)
    ]


def _as_ours(error: Exception) -> BrigantineError:
    if isinstance(error, BrigantineError):
        return error
    failed = GenerationFailed(f"generate() raised {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
