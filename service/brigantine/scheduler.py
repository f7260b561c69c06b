"""The scheduler: one model's queue, and the lanes that empty it.

It is work-conserving: a free lane takes what waits at once, and what arrives while all are busy forms the next batches.
Only where every core has a batch, a small one more waits until those are answered that were just made, for then it is
larger. There is no polling, and the only timer is for a lane that does not end. Rows join the running ones and leave
them between steps; content that is made at once is the case of one step. A request of many rows may be spread over
several batches and is put together again in order.

It belongs to one event loop, on which all of it runs.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from .cores import Cores
from .errors import BrigantineError, NotReady, QueueFull
from .job import Job
from .media import Media
from .station import Fault, Made, Order, Report
from .work import Lane, Work

__all__ = ["Scheduler"]

_MAX_RETRY_AFTER_S = 120.0
"""Beyond this the official OpenAI client gives up instead of waiting."""
_WORTHWHILE = 4
"""Rows from which on a batch is worth being put ahead of its time."""
_AHEAD_S, _ALONE_AHEAD_S = 0.005, 0.02
"""A lane whose work lasts no longer gets its next batch before it is done, since handing over takes time, too, about a
millisecond. With longer ones, rows that wait for one lane could have gone to another that is free earlier; so the
second holds where they are not worth another one."""
_SMALL_S = 0.01
"""A batch that lasts no longer gains from others: to begin one takes about a millisecond, with all that it drives out
of the caches."""
_LONG_S = 0.05
"""A request that lasts as long by itself has a second lane when a core is free, a shorter one when it stays free."""
_LATE_S = 0.05
"""A lane whose batch lasts longer than this, and twice as long as others did, is not waited for."""


class Scheduler:
    """Makes batches of the rows of all waiting jobs, and hands each job its own.

    Args:
        lanes: what runs the batches.
        max_batch: the most rows in a batch.
        queue_rows: the most rows of all jobs that are not over.
        queue_bytes: the most bytes of these.
        parallel: how many batches the device runs at once; waiting rows are divided by it.
        steps: whether rows go on from step to step, so that others can join a busy lane at once; otherwise that shows.
        cores: where a lane needs one to be woken beside a busy one.
        wake_s: how long the request whose turn it is must last by itself for that.
        on_report: told what each batch brought, and which jobs it has finished, before these know it.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        max_batch: int,
        queue_rows: int,
        queue_bytes: int = 2**30,
        parallel: int | None = None,
        steps: bool = False,
        cores: Cores | None = None,
        wake_s: float = 0.0,
        on_report: Callable[[Report, Sequence[Job]], None] = lambda report, finished: None,
    ) -> None:
        self._works = [Work(lane) for lane in lanes]
        for work in self._works:
            work.lane.on_ready = self._feed_soon
            work.lane.on_report = partial(self._told, work)
        self._max_batch = max_batch
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._parallel = parallel or len(lanes)
        self._steps = steps
        self._cores = cores
        self._wake_s = wake_s
        self._on_report = on_report
        self._queue: OrderedDict[Job, None] = OrderedDict()  # in order of arrival, and quick to leave
        self._waiting = 0  # rows in the queue
        self._held = 0  # rows of all jobs that are not over
        self._held_bytes = 0
        self._row_s = 0.0  # seconds that one lane needs for one row, smoothed
        # The first to end of a batch seems to have taken all its time.
        self._unmeasured = max_batch if steps else 0
        self._finished: list[Job] = []
        self._timer: asyncio.TimerHandle | None = None
        self._feeding: asyncio.AbstractEventLoop | None = None
        self._gathering: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Rows that wait for a lane."""
        return self._waiting

    @property
    def held(self) -> int:
        """Rows of all jobs that are not over."""
        return self._held

    def submit(self, job: Job, within_s: float = math.inf) -> None:
        """Queue a job. Its future finishes when it is over; cancel that to take back what has not been made.

        Args:
            job: of at least one row.
            within_s: how long its sender will wait. What cannot be done by then is refused now.

        Raises:
            QueueFull: its rows do not fit, or not in time; carries the seconds after which they may.
            NotReady: the scheduler is closed.
        """
        if self._closed:
            raise NotReady("the service is stopping; send the request to another replica, or again later")
        self.check(job.rows, job.size, within_s)
        job.submitted_s = time.perf_counter()
        job.held = True
        self._queue[job] = None
        self._waiting += job.rows
        self._held += job.rows
        self._held_bytes += job.size
        job.done.add_done_callback(partial(self._over, job))
        self._feed_soon()

    def close(self) -> None:
        """Take no more work, fail what is not finished, and end the lanes."""
        self._closed = True
        for job in [*self._queue, *(job for work in self._works for job, _ in work.jobs.values())]:
            self._fail(job, NotReady("the service has stopped; send the request to another replica"))
        for work in self._works:
            work.lane.close()

    def check(self, more: int = 1, size: int = 0, within_s: float = math.inf) -> None:
        """Whether so many rows more would be taken now.

        Raises:
            QueueFull: they would not.
        """
        rows, size = self._held + more, self._held_bytes + size
        if rows > self._queue_rows or (self._held and size > self._queue_bytes):
            raise self._full(
                f"{self._held} rows are in work and {f'{more} more do not' if more > 1 else 'no more'} fit "
                f"into a queue of {self._queue_rows} rows and {self._queue_bytes} bytes"
            )
        # Measured on what ran last. An idle scheduler takes anything: a rate that was too low corrects itself.
        if self._held and self._unmeasured <= 0 and (needed_s := self._seconds_for(rows)) > within_s:
            raise self._full(
                f"{self._held} rows are in work; {more} more would be done in {needed_s:.2g} s, and the request "
                f"waits {within_s:.2g} s"
            )

    def _full(self, why: str) -> QueueFull:
        seconds = min(max(1.0, math.ceil(self._seconds_for(self._waiting))), _MAX_RETRY_AFTER_S)
        return QueueFull(f"{why}; try again in {seconds:.0f} s", seconds)

    def _seconds_for(self, rows: int) -> float:
        return rows * self._row_s / len(self._works)

    def _feed_soon(self) -> None:
        """After all that has arrived in this turn of the loop."""
        loop = asyncio.get_running_loop()
        if self._feeding is not loop:
            self._feeding = loop
            loop.call_soon(self._feed)

    def _feed(self) -> None:
        """Give what waits to the lanes with nothing to do, or ahead of its time to a busy one."""
        self._feeding = None
        if self._closed or self._gathering is asyncio.get_running_loop():
            return
        stepping = [work for work in self._works if work.stepping and work.rows and work.lane.ready]
        for work in self._works:
            if work.gone and (work in stepping or work.puts > 1):
                self._put(work, 0)
        while takers := self._takers():
            share = self._share(len(takers))
            for work in takers:
                self._put(work, share) if self._waiting else self._rest(work)
        for work in stepping:
            if self._waiting and work.rows < self._max_batch:
                self._put(work, self._share())
        while self._waiting and (busy := self._nearly_done()):
            self._put(busy, self._share())
        if self._waiting and self._timer is None:  # perhaps beside one that does not end
            self._timer = asyncio.get_running_loop().call_later(_LATE_S, self._feed_late)

    def _feed_late(self) -> None:
        self._timer = None
        self._feed()

    def _gather(self) -> None:
        """Feed when those are answered who have been told, and what has come meanwhile has been read.

        The loop is uvloop's, which reads between two turns; asyncio's own reads after the second.
        """
        self._gathering = loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._feed()

    @property
    def _is_crowded(self) -> bool:
        """Whether each core has a batch: one more takes the time of those."""
        return self._cores is not None and self._cores.are_taken

    def _nearly_done(self) -> Work | None:
        """A busy lane that should have its next batch before it is done, if there is one."""
        busy = min((work for work in self._works if work.puts), key=lambda work: work.rows, default=None)
        if busy is None or self._is_late(busy):
            return None
        more = min(self._share(), self._waiting, self._room(busy))
        if more < _WORTHWHILE or not self._row_s or self._is_crowded:
            return None
        return busy if busy.rows * self._row_s <= (_AHEAD_S if self._wakes() else _ALONE_AHEAD_S) else None

    def _room(self, work: Work) -> int:
        """How many rows more a lane may be given: it has at most one batch where rows go on from step to step, and two
        where they are made at once.
        """
        if work.stepping:  # a batch may have been put behind it before that was known
            return max(0, self._max_batch - work.rows)
        return min(self._max_batch, 2 * self._max_batch - work.rows)

    def _takers(self) -> list[Work]:
        """The lanes that should take what waits: beside a busy one only those for which there is a core."""
        idle = [work for work in self._works if work.lane.ready and not work.is_busy]
        busy = [work for work in self._works if work.is_busy]
        # Beside one that does not end, the next is as good as the only one.
        needed = not all(map(self._is_late, busy))
        takers: list[Work] = []
        for work in idle[: self._waiting]:
            beside = bool(takers) or (bool(busy) and needed)
            if beside and not self._wakes():
                break
            if self._cores is not None:
                patient = self._lasts_s() < _LONG_S
                work.core = self._cores.take_spare(patient) if beside else self._cores.take()
                if work.core is None:
                    break
            takers.append(work)
        return takers

    def _is_late(self, work: Work) -> bool:
        expected_s = work.rows * self._row_s
        return work.puts > 0 and time.perf_counter() - work.since_s > 2 * expected_s + _LATE_S

    def _share(self, takers: int = 1) -> int:
        """How many of the rows that wait each taker should have, when those that are busy will have some, too."""
        if not self._wakes():
            return self._waiting
        lanes = takers + sum(work.is_busy for work in self._works)
        return math.ceil(self._waiting / max(1, min(self._parallel, lanes)))

    def _rest(self, work: Work) -> None:
        """A lane with nothing to do needs no core; one that does without may have one by now."""
        if self._cores is not None and work.core is not None:
            work.core = self._cores.trade(work.core) if work.is_busy else self._cores.give(work.core)

    def _wakes(self) -> bool:
        """Whether the request whose turn it is is worth several lanes."""
        return bool(self._queue) and self._lasts_s() >= self._wake_s

    def _lasts_s(self) -> float:
        """How long the request whose turn it is lasts by itself; there must be one."""
        first = next(iter(self._queue))
        return (first.rows - first.taken) * self._row_s

    def _put(self, work: Work, share: int) -> None:
        """A share of what waits, in rows, joins a lane, and who hung up leaves it."""
        gone = work.drop()
        room = min(share, self._room(work))
        orders: list[Order] = []
        while room and self._queue:
            job = next(iter(self._queue))
            take = min(job.rows - job.taken, room)
            shown = job.on_part is not None
            orders.append(
                Order(job.number, job.body, job.request, job.seed, job.media_type, job.taken, take, shown)
            )
            job.taken += take
            room -= take
            self._waiting -= take
            work.join(job, take)
            if job.taken == job.rows:
                del self._queue[job]
        if not work.puts:
            work.since_s = time.perf_counter()
        work.puts += 1
        work.stepping = work.stepping or self._steps
        work.lane.put(orders, gone)

    def _told(self, work: Work, report: Report) -> None:
        work.puts -= report.puts
        work.since_s = time.perf_counter()
        for number, index, media in report.parts:
            self._show(work, number, index, media)
        for number, index, outcome in report.outcomes:
            self._settle(work, number, index, outcome)
        finished, self._finished = self._finished, []
        self._on_report(report, finished)
        if report.lost is not None:
            for number in list(work.jobs):
                self._settle(work, number, 0, report.lost)
        work.busy_s += report.busy_s
        if made := sum(isinstance(outcome, Made) for _, _, outcome in report.outcomes):
            self._measure(work.busy_s / made)
            self._unmeasured -= made
            work.busy_s = 0.0
        work.stepping = self._steps or report.running > 0
        gathers = not self._steps and self._waiting * self._row_s < _SMALL_S and self._is_crowded
        self._rest(work)
        self._gather() if gathers else self._feed()

    def _show(self, work: Work, number: int, index: int, media: Media) -> None:
        if number in work.jobs:
            job, _ = work.jobs[number]
            if job.on_part is not None and not job.done.done():
                job.on_part(index, media, False)

    def _settle(self, work: Work, number: int, index: int, outcome: Made | Fault) -> None:
        if number not in work.jobs:
            return  # it has left
        job, count = work.jobs[number]
        if isinstance(outcome, Fault):
            self._fail(job, outcome.raised())
            work.leave(job, count)
            if work.puts:  # rows that were put ahead may join yet
                work.gone.add(number)
            return
        job.made[index] = outcome
        if job.on_part is not None and not job.done.done():
            job.on_part(index, outcome.media, True)
        work.leave(job, 1)
        if len(job.made) == job.rows and not job.done.done():
            job.done.set_result(None)
            self._finished.append(job)

    def _fail(self, job: Job, error: BrigantineError) -> None:
        if not job.done.done():
            job.done.set_exception(error)
            job.done.exception()  # whoever waits is told; nobody need be
        self._free(job)

    def _over(self, job: Job, done: asyncio.Future[None]) -> None:
        self._free(job)
        then, job.then = job.then, None  # which most likely holds the job
        if then is not None:
            then()

    def _free(self, job: Job) -> None:
        """The job's place is free, and its waiting rows are gone."""
        if not job.held:
            return
        job.held = False
        self._held -= job.rows
        self._held_bytes -= job.size
        if job in self._queue:
            del self._queue[job]
            self._waiting -= job.rows - job.taken
        for work in self._works:
            if job.number in work.jobs and len(job.made) < job.rows:
                work.gone.add(job.number)
                self._feed_soon()

    def _measure(self, row_s: float) -> None:
        self._row_s = 0.9 * self._row_s + 0.1 * row_s if self._row_s else row_s
