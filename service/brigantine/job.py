"""A job: one request on its way through the scheduler."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from .media import Media
from .request import Request
from .station import Made

__all__ = ["Job", "OnPart"]

OnPart = Callable[[int, Media, bool], None]
"""Told on the loop, as soon as it is there: the index of a row, and a part of it, or (True) all of it at its end."""


class Job:
    """One request, and what becomes of it.

    Args:
        body: what was asked for.
        request: what its validation made of it.
        seed: the request's seed.
        media_type: what to render.
        rows: how many, at least one.
        size: the bytes that it holds while it waits.
        on_part: told what can be shown of its rows.
    """

    _numbers = itertools.count()

    def __init__(
        self,
        body: Mapping[str, Any],
        request: Request | None,
        seed: int,
        media_type: str,
        rows: int = 1,
        size: int = 0,
        on_part: OnPart | None = None,
    ) -> None:
        self.number = next(self._numbers)
        self.body = body
        self.request = request
        self.seed = seed
        self.media_type = media_type
        self.rows = rows
        self.size = size
        self.on_part = on_part
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Finishes, or fails, when the job is over; it is over when this is cancelled, too."""
        self.made: dict[int, Made] = {}
        """Finished rows by their index."""
        self.submitted_s = 0.0
        self.taken = 0
        """Rows that have left the queue."""
        self.held = False
        """Whether it has a place in the scheduler."""
        self.then: Callable[[], object] | None = None
        """Called when it is over and its place is free, before those who wait for `done`."""

    @property
    def media(self) -> list[Media]:
        """The finished rows, in order."""
        return [self.made[index].media for index in range(self.rows)]
