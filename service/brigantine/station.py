"""A station: where a model's rows are made, from the request to the finished Media, one batch at a time.

It runs in a thread or in a process of its own. Rows join the running ones and leave them between steps; content that
is made at once is the case of one step. An exception in a batch fails only the request that causes it.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from .errors import BrigantineError, GenerationFailed
from .media import Media
from .plugin import Done, Part, Plugin
from .request import Request, parse, prepare_row, request_type
from .seeds import derive_seeds

__all__ = ["Fault", "Made", "Order", "Outcome", "Report", "Station", "Step"]


log = logging.getLogger(__name__)

_TURN_S = 0.005
"""How long a station waits for its turn to prepare. A plugin that takes longer may well not be busy with Python."""


class Order(NamedTuple):
    """Some rows of one request that are wanted."""

    job: int
    """The request that they belong to."""
    body: Mapping[str, Any]
    """As it came; it has been validated."""
    request: Request | None
    """What the validation made of it; None where that cannot be sent, which validates it anew."""
    seed: int
    """The request's own."""
    media_type: str
    first: int
    """Index of the first row."""
    rows: int
    shown: bool = False
    """Whether somebody waits for its parts."""


class Made(NamedTuple):
    """A finished row. Times are those of `time.perf_counter`, which all processes of a machine share."""

    media: Media
    seed: int
    taken_s: float
    """When its batch was taken up."""
    started_s: float
    """When its first step began."""
    shown_s: float
    """When the first of it could be shown: a part, or all of it."""
    computed_s: float
    """When its last step ended."""
    batch_rows: int
    """Rows in the largest step that it was part of."""


class Fault(NamedTuple):
    """A row that failed, and the traceback, which does not travel between processes by itself."""

    error: BrigantineError
    trace: str

    @classmethod
    def of(cls, error: BaseException, step: str) -> Fault:
        """What `step` raised, as an error of ours that can be pickled."""
        try:
            said = f"{step}() raised {type(error).__name__}: {error}"
        except Exception:
            said = f"{step}() raised {type(error).__name__}, which cannot say why"
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            if isinstance(error, BrigantineError) and pickle.loads(pickle.dumps(error)):
                return cls(error, trace)
        except Exception:
            log.debug("%s cannot be pickled", type(error))
        return cls(GenerationFailed(said), trace)

    def raised(self) -> BrigantineError:
        """The error, with its traceback as its cause."""
        if self.trace:
            self.error.__cause__ = RuntimeError(f"\n{self.trace}")
        return self.error


Outcome = tuple[int, int, Made | Fault]
"""The job, the index of the row in it, and what became of that."""


class Step(NamedTuple):
    """A batch that ran."""

    rows: int
    compute_s: float
    encode_s: float
    """Seconds in which its finished rows were rendered, one after the other."""


class Report(NamedTuple):
    """What one step brought."""

    outcomes: list[Outcome]
    steps: list[Step]
    """More than one after an exception."""
    prepare_s: float
    """Seconds in which the rows that joined waited for their turn and were prepared."""
    busy_s: float
    """From taking it up to the last row rendered."""
    parts: Sequence[tuple[int, int, Media]] = ()
    """Of rows that go on: the job, the index of the row in it, and what can be shown."""
    puts: int = 1
    """How many of what was put into the lane it has taken up."""
    lost: Fault | None = None
    """Why every row that was in the lane is lost, if it is."""
    begins: bool = False
    """Whether one of the parts is the first of its row."""
    running: int = 0
    """Rows that want another step."""

    @property
    def is_news(self) -> bool:
        """Whether somebody waits for it; parts that follow others may come with the next ones."""
        return bool(self.outcomes or self.begins or self.puts or self.lost)

    @classmethod
    def joined(cls, several: Sequence[Report]) -> Report:
        """Several that follow each other, as one."""
        return cls(
            [outcome for report in several for outcome in report.outcomes],
            [step for report in several for step in report.steps],
            sum(report.prepare_s for report in several),
            sum(report.busy_s for report in several),
            [part for report in several for part in report.parts],
            sum(report.puts for report in several),
            next((report.lost for report in several if report.lost), None),
            any(report.begins for report in several),
            several[-1].running,
        )


@dataclass(eq=False, slots=True)
class _Row:
    """One running row."""

    job: int
    index: int
    seed: int
    request: Request
    media_type: str
    taken_s: float
    shown: bool
    state: Any = None
    started_s: float = 0.0
    shown_s: float = 0.0
    batch_rows: int = 0


class Station:
    """Makes the rows of one model. Used by one thread at a time.

    Args:
        plugin: the model's plugin, warmed up.
        max_n: the largest `n` of a request.
        turn: held while rows are prepared, by one at a time of the stations that share it.
    """

    def __init__(self, plugin: Plugin[Any], max_n: int, turn: threading.Lock | None = None) -> None:
        self._plugin = plugin
        self._turn = turn or threading.Lock()
        self._request = request_type(plugin.params, "Order", max_n)
        self._running: list[_Row] = []

    @property
    def running(self) -> list[int]:
        """The job of each row that wants another step."""
        return [row.job for row in self._running]

    def advance(self, orders: Sequence[Order], gone: Sequence[int] = (), puts: int = 1) -> Report:
        """Let the rows of `orders` join, those of the jobs that are `gone` leave, and take one step."""
        begin = time.perf_counter()
        outcomes: list[Outcome] = []
        steps: list[Step] = []
        parts: list[tuple[int, int, Media]] = []
        begins = False
        prepared = begin
        try:
            if orders or gone:
                joined = self._joined(orders, set(gone), outcomes)
                self._running += joined
                prepared = time.perf_counter()
            self._running = self._step(self._running, outcomes, steps)
            parts, begins = self._parts()
            if outcomes:
                self._drop({job for job, _, outcome in outcomes if isinstance(outcome, Fault)})
        except BaseException as error:  # what is not expected costs all that is here, but is reported
            jobs = {row.job for row in self._running} | {order.job for order in orders}
            outcomes = [(job, 0, Fault.of(error, "station")) for job in sorted(jobs)]
            self._running = []
        busy_s = time.perf_counter() - begin
        running = len(self._running)
        return Report(outcomes, steps, prepared - begin, busy_s, parts, puts, begins=begins, running=running)

    def _joined(self, orders: Sequence[Order], gone: set[int], outcomes: list[Outcome]) -> list[_Row]:
        begin = time.perf_counter()
        self._drop(gone)
        stayed = [order for order in orders if order.job not in gone]  # some left before they had joined
        if not stayed:
            return []
        # Python runs in one thread at a time: of two that prepare together both are late, and no core computes.
        has_turn = self._turn.acquire(timeout=_TURN_S)
        try:
            return [row for order in stayed for row in self._prepared(order, begin, outcomes)]
        finally:
            if has_turn:
                self._turn.release()

    def _drop(self, jobs: set[int]) -> None:
        self._leave(row for row in self._running if row.job in jobs)
        self._running = [row for row in self._running if row.job not in jobs]

    def _prepared(self, order: Order, now: float, outcomes: list[Outcome]) -> list[_Row]:
        """The rows of an order with their first state; none when one of them cannot be prepared."""
        rows: list[_Row] = []
        try:
            request = order.request or parse(self._request, order.body)
            indices = range(order.first, order.first + order.rows)
            for index, seed in zip(indices, derive_seeds(order.seed, indices), strict=True):
                state = prepare_row(self._plugin, request, seed)
                rows.append(_Row(order.job, index, seed, request, order.media_type, now, order.shown, state))
        except BaseException as error:  # a plugin may raise anything, and its thread must go on
            self._leave(rows)
            outcomes.append((order.job, order.first, Fault.of(error, "prepare")))
            return []
        return rows

    def _step(self, rows: list[_Row], outcomes: list[Outcome], steps: list[Step]) -> list[_Row]:
        """Take one step; what is done is rendered, and the others are returned.

        When it raises, its halves are run, until only the job that causes it is left.
        """
        if not rows:
            return rows
        begin = time.perf_counter()
        try:
            states = self._plugin.step([row.state for row in rows])
            if len(states) != len(rows):
                raise GenerationFailed(
                    f"step() must return a state for each of {len(rows)} rows, got {len(states)}"
                )
        except BaseException as error:
            return self._bisect(rows, error, outcomes, steps)
        now, count, is_done = time.perf_counter(), len(rows), False
        for row, state in zip(rows, states, strict=True):
            row.state = state
            row.started_s = row.started_s or begin
            row.batch_rows = max(row.batch_rows, count)
            is_done = is_done or isinstance(state, Done)
        if not is_done:
            steps.append(Step(count, now - begin, 0.0))
            return rows
        outcomes += [self._rendered(row, now) for row in rows if isinstance(row.state, Done)]
        steps.append(Step(count, now - begin, time.perf_counter() - now))
        return [row for row in rows if not isinstance(row.state, Done)]

    def _parts(self) -> tuple[list[tuple[int, int, Media]], bool]:
        """What can be shown of the rows that go on, which they then hold no longer, and whether one begins with it."""
        now = time.perf_counter()
        parts: list[tuple[int, int, Media]] = []
        begins = False
        for row in self._running:
            if isinstance(row.state, Part):
                row.state, media = row.state
                begins = begins or (row.shown and not row.shown_s)
                row.shown_s = row.shown_s or now
                if row.shown:
                    parts.append((row.job, row.index, media))
        return parts, begins

    def _bisect(
        self, rows: list[_Row], error: BaseException, outcomes: list[Outcome], steps: list[Step]
    ) -> list[_Row]:
        jobs = {row.job for row in rows}
        if len(jobs) == 1:
            self._leave(rows)
            outcomes.append((rows[0].job, rows[0].index, Fault.of(error, "step")))
            return []
        middle = len(rows) // 2
        running = self._step(rows[:middle], outcomes, steps)
        failed = {job for job, _, outcome in outcomes if isinstance(outcome, Fault)}
        rest = rows[middle:]
        self._leave(row for row in rest if row.job in failed)
        return running + self._step([row for row in rest if row.job not in failed], outcomes, steps)

    def _leave(self, rows: Iterable[_Row]) -> None:
        for row in rows:
            try:
                self._plugin.leave(row.state)
            except Exception:
                log.exception("%s: leave() raised; what its row held may be lost", self._plugin.name)

    def _rendered(self, row: _Row, now: float) -> Outcome:
        try:
            media = cast(object, self._plugin.render(row.state.row, row.request, row.media_type))
            if not isinstance(media, Media):
                raise GenerationFailed(f"render() must return Media, got {type(media).__name__}")
        except BaseException as error:
            return row.job, row.index, Fault.of(error, "render")
        made = Made(media, row.seed, row.taken_s, row.started_s, row.shown_s or now, now, row.batch_rows)
        return row.job, row.index, made
