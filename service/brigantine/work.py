"""Work: what a lane has been given and has not reported yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .job import Job
from .station import Order, Report

__all__ = ["Lane", "Work"]


class Lane(Protocol):
    """Runs batches, one after the other, somewhere else than on the event loop."""

    on_ready: Callable[[], None]
    """Called when it has become ready."""
    on_report: Callable[[Report], None]
    """Called on the loop with what each step brought."""

    @property
    def ready(self) -> bool:
        """Whether it can take work now."""
        ...

    def put(self, orders: Sequence[Order], gone: Sequence[int]) -> None:
        """Let these rows join and those jobs leave at the next step; then go on until all rows are done."""
        ...

    def close(self) -> None:
        """End, and wait for that no longer than some seconds."""
        ...


@dataclass(eq=False)
class Work:
    """What a lane has been given and has not reported yet."""

    lane: Lane
    core: int | None = None
    """The core that it has taken for what it does, or what says that it does without."""
    stepping: bool = False
    """Whether its rows go on from step to step; others can join these."""
    puts: int = 0
    """What it was given and has not taken up yet, or is busy with for the first step."""
    since_s: float = 0.0
    """When it began with the batch that it makes."""
    rows: int = 0
    """Rows that are in it, as far as we know."""
    busy_s: float = 0.0
    """Seconds that it has worked since rows last left it."""
    jobs: dict[int, tuple[Job, int]] = field(default_factory=dict[int, tuple[Job, int]])
    """Each job with rows in it, and how many."""
    gone: set[int] = field(default_factory=set[int])
    """Jobs with rows in it that nobody waits for any more."""

    @property
    def is_busy(self) -> bool:
        return self.puts > 0 or self.rows > 0  # between its steps it has rows

    def join(self, job: Job, rows: int) -> None:
        """So many rows of the job are in the lane now."""
        self.rows += rows
        self.jobs[job.number] = job, rows + self.jobs.get(job.number, (job, 0))[1]

    def leave(self, job: Job, rows: int) -> None:
        """So many rows of the job are no longer in the lane."""
        self.rows -= rows
        count = self.jobs[job.number][1] - rows
        if count:
            self.jobs[job.number] = job, count
        else:
            del self.jobs[job.number]
            self.gone.discard(job.number)

    def drop(self) -> list[int]:
        """The jobs that nobody waits for any more leave; their numbers."""
        gone, self.gone = self.gone, set[int]()
        for number in gone & self.jobs.keys():
            self.rows -= self.jobs.pop(number)[1]
            self.busy_s = 0.0  # some of it went into rows that will not be finished
        return list(gone)
