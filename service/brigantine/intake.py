"""Intake: what was put into a lane and waits there, of which as much is taken up at once as fits into a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from .station import Order

__all__ = ["Intake", "Taken"]


class Taken(NamedTuple):
    """What is taken up at once."""

    orders: list[Order]
    """Whose rows join."""
    gone: list[int]
    """The jobs that leave."""
    puts: int
    """How many puts have been taken up with these orders, to their end."""


class Intake:
    """Orders, in the order in which they came. What is gone leaves at once, whatever waits before it.

    Args:
        max_batch: the most rows in a batch.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._puts: deque[Sequence[Order]] = deque()
        self._gone: list[int] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._puts

    def add(self, orders: Sequence[Order], gone: Sequence[int]) -> None:
        """What `Lane.put` was given."""
        self._puts.append(orders)
        self._gone += gone

    def take(self, running: Sequence[int] = ()) -> Taken:
        """What fits, with rows of the jobs `running` in the batch already."""
        gone, self._gone = self._gone, []
        if gone:
            left = set(gone)
            running = [job for job in running if job not in left]
            self._puts = deque([order for order in put if order.job not in left] for put in self._puts)
        taken = Taken([], gone, 0)
        room = self._max_batch - len(running)
        while self._puts:
            now, later = _parted(self._puts[0], room)
            taken.orders.extend(now)
            if later:
                self._puts[0] = later
                break
            self._puts.popleft()
            room -= sum(order.rows for order in now)
            taken = taken._replace(puts=taken.puts + 1)
        return taken


def _parted(orders: Sequence[Order], room: int) -> tuple[Sequence[Order], Sequence[Order]]:
    """The first `room` rows, and the others."""
    for place, order in enumerate(orders):
        if order.rows > room:
            now = [*orders[:place], *([order._replace(rows=room)] if room else [])]
            rest = order._replace(first=order.first + room, rows=order.rows - room)
            return now, [rest, *orders[place + 1 :]]
        room -= order.rows
    return orders, []
