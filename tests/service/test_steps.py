"""Content that is made in steps: rows join and leave between them, and nobody's company matters."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from brigantine import Done
from brigantine.errors import GenerationFailed
from brigantine.model import Arrays
from brigantine.scheduler import Scheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.jobs import Ask, deliver


class Spell(NamedTuple):
    """A row that takes as many steps as its value says, and sums up which ones it had."""

    value: float
    steps: int = 0
    total: float = 0.0


class Speller:
    """A step-wise plugin: `x` steps, then y = 1 + 2 + ... + x. It notes the company of each step."""

    def __init__(self) -> None:
        self.companies: list[list[float]] = []
        self.left: list[float] = []
        self.stepped = threading.Event()
        self.go_on = threading.Semaphore(0)
        self.paced = False
        self.poison = 0.0

    def step(self, states: Sequence[Arrays | Spell]) -> list[Spell | Done]:
        if self.paced:
            self.stepped.set()
            assert self.go_on.acquire(timeout=10)
        spells = [s if isinstance(s, Spell) else Spell(float(s["x"])) for s in states]
        self.companies.append([spell.value for spell in spells])
        if any(spell.value == self.poison and spell.steps == 2 for spell in spells):
            raise ValueError("stuck")
        return [self._next(spell) for spell in spells]

    def _next(self, spell: Spell) -> Spell | Done:
        steps = spell.steps + 1
        after = Spell(spell.value, steps, spell.total + steps)
        return Done({"y": np.asarray(after.total)}) if steps >= spell.value else after

    def leave(self, state: Arrays | Spell) -> None:
        self.left.append(state.value if isinstance(state, Spell) else float(state["x"]))


def scheduler(speller: Speller, **options: int) -> Scheduler[float]:
    given = {"threads": 1, "max_batch": 4, "queue_rows": 1000} | options
    return Scheduler(speller.step, deliver, leave=speller.leave, **given)  # type: ignore[arg-type]


def total(value: float) -> float:
    return value * (value + 1) / 2


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=20),
    st.integers(1, 3),
)
def test_everyone_gets_all_their_steps_whoever_comes_and_goes(requests: list[list[int]], threads: int):
    speller = Speller()
    one = scheduler(speller, threads=threads)
    asks = [Ask(*request) for request in requests]
    for ask in asks:
        one.submit(ask)

    for request, ask in zip(requests, asks, strict=True):
        assert ask.answer() == [total(value) for value in request]
    one.close()
    assert max(map(len, speller.companies)) <= 4
    assert (one.held, speller.left) == (0, [])


@pytest.fixture
def paced():
    """A scheduler that takes one step each time it is told to."""
    speller = Speller()
    speller.paced = True
    one = scheduler(speller)

    def step() -> None:
        speller.stepped.clear()
        speller.go_on.release()
        assert speller.stepped.wait(10)

    yield one, speller, step
    speller.paced = False
    speller.go_on.release()
    one.close()


def test_a_new_row_joins_between_steps_and_a_finished_one_leaves(paced):
    one, speller, step = paced
    long, short = Ask(5), Ask(2)
    one.submit(long)
    assert speller.stepped.wait(10)
    step()
    one.submit(short)
    for _ in range(3):
        step()
    speller.go_on.release()

    assert short.answer() == [3] and long.answer() == [15]
    assert speller.companies == [[5], [5], [5, 2], [5, 2], [5]]


def test_who_hangs_up_leaves_between_steps(paced):
    one, speller, step = paced
    gone, stays = Ask(9), Ask(3)
    one.submit(gone)
    assert speller.stepped.wait(10)
    one.submit(stays)
    step()
    one.cancel(gone)
    assert one.held == 1
    step()  # the one that was under way
    step()
    speller.go_on.release()

    assert stays.answer() == [6]
    assert speller.left == [9]
    assert [9, 3] in speller.companies and speller.companies[-1] == [3]


def test_the_places_of_finished_rows_are_taken_by_waiting_ones():
    speller = Speller()
    one = scheduler(speller, max_batch=2)
    ask = Ask(6, 1, 1, 1, 1, 1)
    one.submit(ask)

    assert ask.answer() == [21, 1, 1, 1, 1, 1]
    one.close()
    assert len(speller.companies) == 6  # as many as the longest needs


def test_a_step_that_raises_costs_only_the_row_that_makes_it():
    speller = Speller()
    speller.poison = 7
    one = scheduler(speller)
    asks = {value: Ask(value) for value in (5, 7, 3, 4)}
    for ask in asks.values():
        one.submit(ask)

    with pytest.raises(GenerationFailed, match=r"step\(\) raised ValueError: stuck"):
        asks.pop(7).answer()
    for value, ask in asks.items():
        assert ask.answer() == [total(value)]  # no step was taken twice, and none was left out
    one.close()
    assert speller.left == [7]
