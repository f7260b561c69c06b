"""The slots of a cache: a fixed number of places, one for a sequence, each as long as the longest may be.

How much memory they take is known before the first request. A slot that is free keeps the beginning of the sequence
that had it, and the next sequence with the same beginning need not be read from its first token again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from weakref import ReferenceType, ref

from .tensors import HostTensors, Tensors

__all__ = ["Place", "Slots"]


class Place:
    """A sequence's place in the cache: its own until nothing refers to it any more."""

    __slots__ = ("__weakref__",)


class Slots:
    """Who has which part of a cache. For one thread at a time.

    Args:
        tensors: the memory of the cache.
        chunk: tokens that are read at a time; beginnings are reused in whole chunks.
    """

    def __init__(self, tensors: Tensors, chunk: int) -> None:
        self.tensors = tensors
        slots = tensors.shape[1]
        self._chunk = chunk
        self._slot_of: dict[int, int] = {}  # by the identity of a place, which is its own while it lives
        self._owners: list[ReferenceType[Place] | None] = [None] * slots
        self._beginnings: list[tuple[int, ...]] = [()] * slots  # tokens whose whole chunks are in a slot
        self.filled = [0] * slots
        """Tokens that each slot has, of a sequence that has ended, too."""
        self._used_at = [0] * slots
        self._gathered: list[int] | None = None  # the places, by their identities, that were asked for last
        self._there: tuple[int, ...] = ()  # their slots
        self._clock = itertools.count(1)

    @property
    def used(self) -> float:
        """The share of the cache that sequences fill, from 0 to 1."""
        filled = sum(filled for slot, filled in enumerate(self.filled) if not self._is_free(slot))
        return filled / (self.tensors.shape[1] * self.tensors.shape[3])

    def take(self, tokens: Sequence[int], reuse: bool) -> tuple[Place, int] | None:
        """A place for a sequence that begins with `tokens`, and how many of these are in it; None: all are taken."""
        free = [slot for slot in range(len(self._owners)) if self._is_free(slot)]
        if not free:
            return None
        known, source = self._longest(tokens) if reuse else (0, 0)
        slot = source if known and source in free else min(free, key=self._used_at.__getitem__)
        if known and slot != source:
            self.tensors.copy(source, slot, known)
        place = Place()
        self._slot_of = {
            one: where for one, where in self._slot_of.items() if where != slot
        }  # who had it is gone
        self._slot_of[id(place)] = slot
        self._gathered = None  # this one may have the identity of one that is gone
        self._owners[slot] = ref(place)
        self._beginnings[slot] = tuple(tokens[:known])
        self.filled[slot] = known
        self._used_at[slot] = next(self._clock)
        return place, known

    def slot_of(self, place: Place) -> int:
        """Where a sequence lies now."""
        return self._slot_of[id(place)]

    def has_read(self, place: Place, tokens: Sequence[int]) -> None:
        """The sequence consists of these tokens of its prompt so far; those in whole chunks may be reused."""
        slot = self._slot_of[id(place)]
        self.filled[slot] = len(tokens)
        self._beginnings[slot] = tuple(tokens[: len(tokens) // self._chunk * self._chunk])

    def have_grown(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """The sequence in each of these slots has one token more than so many."""
        for slot, length in zip(slots, lengths, strict=True):
            self.filled[slot] = length + 1

    def forget(self) -> None:
        """Give back the memory of what is kept for later, unless a sequence has a place."""
        if all(map(self._is_free, range(len(self._owners)))):
            self.tensors.clear()
            self._beginnings = [()] * len(self._owners)
            self.filled = [0] * len(self._owners)

    def gather(self, places: Sequence[Place]) -> tuple[int, ...]:
        """Let these sequences have the first slots, beside each other; gives the slot of each."""
        who = list(map(id, places))
        if who != self._gathered:
            self._gathered = None  # of two that should move one may
            self._bring_together({self._slot_of[one] for one in who})
            self._gathered, self._there = who, tuple(self._slot_of[one] for one in who)
        return self._there

    def _bring_together(self, slots: set[int]) -> None:
        holes = [slot for slot in range(len(slots)) if slot not in slots]
        away = sorted(slot for slot in slots if slot >= len(slots))
        for hole, slot in zip(holes, away, strict=True):
            self._swap(hole, slot)

    def _is_free(self, slot: int) -> bool:
        owner = self._owners[slot]
        return owner is None or owner() is None

    def _longest(self, tokens: Sequence[int]) -> tuple[int, int]:
        """How many tokens of a beginning are in the cache, in whole chunks, and where. The last one is always read."""
        most = (len(tokens) - 1) // self._chunk
        return max(
            (self._common(beginning, tokens, most), slot) for slot, beginning in enumerate(self._beginnings)
        )

    def _common(self, beginning: tuple[int, ...], tokens: Sequence[int], most: int) -> int:
        """How many tokens both begin with, in at most so many whole chunks."""
        size = self._chunk
        for count in range(min(most, len(beginning) // size)):
            chunk = slice(count * size, (count + 1) * size)
            if beginning[chunk] != tuple(tokens[chunk]):
                return count * size
        return min(most, len(beginning) // size) * size

    def _swap(self, one: int, other: int) -> None:
        assert isinstance(self.tensors, HostTensors), "on a device all slots run, and none is moved"
        self.tensors.swap(one, other, max(map(self._kept, (one, other))))
        for facts in (self._owners, self._beginnings, self.filled, self._used_at):
            facts[one], facts[other] = facts[other], facts[one]  # type: ignore[index]
        for slot in (one, other):
            owner = self._owners[slot]
            if owner is not None and (place := owner()) is not None:
                self._slot_of[id(place)] = slot

    def _kept(self, slot: int) -> int:
        return len(self._beginnings[slot]) if self._is_free(slot) else self.filled[slot]
