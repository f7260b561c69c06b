"""A station's promises: every row its own, whole, and a failure costs only the request that causes it."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from brigantine import BadParams, FieldError
from brigantine.station import Fault, Made, Order, Outcome, Station

from tests.service.toys import POISON, QUITS, REFUSED, UNPREPARED, UNRENDERED, Speller, Toy


def orders(*values: int, rows: int = 1) -> list[Order]:
    return [
        Order(job, {"value": value}, None, job, "text/plain", 0, rows) for job, value in enumerate(values)
    ]


def bodies(station: Station, wanted: list[Order]) -> dict[tuple[int, int], bytes]:
    outcomes = station.advance(wanted).outcomes
    return {(job, index): made.media.body for job, index, made in outcomes if isinstance(made, Made)}


def test_every_row_is_what_it_is_alone():
    together = bodies(Station(Toy(), 9), orders(*range(10), rows=3))

    assert len(together) == 30
    for order in orders(*range(10), rows=3):
        assert bodies(Station(Toy(), 9), [order]).items() <= together.items()


@pytest.mark.parametrize("place", [0, 17, 63])
def test_one_poisonous_request_in_64_costs_logarithmically_many_batches(place: int):
    toy = Toy()
    wanted = orders(*(POISON if index == place else index for index in range(64)))

    outcomes = {job: outcome for job, _, outcome in Station(toy, 9).advance(wanted).outcomes}

    fault = outcomes.pop(place)
    assert isinstance(fault, Fault)
    assert str(fault.error) == "generate() raised ValueError: thirteen"
    assert "ValueError: thirteen" in fault.trace
    alone = bodies(Station(Toy(), 9), [order for order in wanted if order.job != place])
    assert {(job, 0): made.media.body for job, made in outcomes.items() if isinstance(made, Made)} == alone
    assert len(toy.batches) <= 1 + 2 * math.log2(64)  # the whole batch, and both halves on six levels


def test_the_rows_of_one_request_are_not_told_apart():
    toy = Toy()
    report = Station(toy, 9).advance(orders(POISON, rows=8))

    assert len(toy.batches) == 1
    assert [(job, index) for job, index, _ in report.outcomes] == [(0, 0)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (REFUSED, "no such chord"),
        (QUITS, "step() raised SystemExit: "),
        (UNPREPARED, "prepare() raised ZeroDivisionError: by nought"),
        (UNRENDERED, "render() raised ZeroDivisionError: by nought"),
    ],
)
def test_whatever_a_plugin_raises_costs_its_request_alone(value: int, message: str):
    outcomes = {job: outcome for job, _, outcome in Station(Toy(), 9).advance(orders(1, value, 2)).outcomes}

    fault = outcomes.pop(1)
    assert isinstance(fault, Fault)
    assert str(fault.error) == message
    assert isinstance(outcomes[0], Made) and isinstance(outcomes[2], Made)


def test_rows_that_do_not_stack_are_run_apart(monkeypatch: pytest.MonkeyPatch):
    toy = Toy()
    prepare = toy.prepare
    monkeypatch.setattr(toy, "prepare", lambda params, rng: {} if params.value == 5 else prepare(params, rng))
    outcomes = {job: outcome for job, _, outcome in Station(toy, 9).advance(orders(1, 5, 2)).outcomes}

    assert isinstance(outcomes[0], Made) and isinstance(outcomes[2], Made)
    assert isinstance(outcomes[1], Fault)


def test_a_wrong_number_of_states_is_the_plugins_fault(monkeypatch: pytest.MonkeyPatch):
    toy = Toy()
    monkeypatch.setattr(toy, "step", lambda states: [])
    [(_, _, fault)] = Station(toy, 9).advance(orders(1)).outcomes

    assert isinstance(fault, Fault)
    assert str(fault.error) == "step() must return a state for each of 1 rows, got 0"


def test_a_row_that_leaves_gives_back_its_state():
    speller = Speller()
    station = Station(speller, 9)
    station.advance(orders(3, 4))
    outcomes = station.advance([], gone=[0]).outcomes

    assert outcomes == []
    assert [state.value for state in speller.left] == [3]
    assert speller.batches == [[3, 4], [4]]


def test_a_step_that_raises_is_repeated_for_the_others_as_they_were():
    speller = Speller()
    speller.poison = 7
    station = Station(speller, 9)
    outcomes = station.advance(orders(5, 7, 3, 4)).outcomes
    for _ in range(4):
        outcomes += station.advance([]).outcomes

    totals = {job: made.media.body for job, _, made in outcomes if isinstance(made, Made)}
    assert totals == {0: b"15.0", 2: b"6.0", 3: b"10.0"}  # no step was taken twice, and none was left out
    assert [job for job, _, outcome in outcomes if isinstance(outcome, Fault)] == [1]
    assert [state.value for state in speller.left] == [7]


def test_a_plugin_that_cannot_even_leave_costs_nobody_their_answer(monkeypatch: pytest.MonkeyPatch):
    speller = Speller()
    monkeypatch.setattr(speller, "leave", lambda state: 1 / 0)
    station = Station(speller, 9)
    station.advance(orders(3, 2))
    outcomes = station.advance([], gone=[0]).outcomes

    assert [(job, made.media.body) for job, _, made in outcomes if isinstance(made, Made)] == [(1, b"3.0")]


def test_what_is_no_media_fails_its_row(monkeypatch: pytest.MonkeyPatch):
    toy = Toy()
    monkeypatch.setattr(toy, "render", lambda *args: b"bytes")
    [(_, _, fault)] = Station(toy, 9).advance(orders(1)).outcomes

    assert isinstance(fault, Fault)
    assert str(fault.error) == "render() must return Media, got bytes"


def test_a_fault_keeps_what_an_error_of_ours_knows():
    error = BadParams([FieldError("label", "an index", "'x'")])

    fault = Fault.of(error, "prepare")

    assert fault.error is error
    assert (fault.raised().param, fault.raised().status) == ("label", 422)


def test_an_error_that_cannot_travel_is_told_in_words():
    class Local(BadParams):
        pass

    fault = Fault.of(Local([FieldError("label", "an index", "'x'")]), "prepare")

    assert str(fault.error) == "prepare() raised Local: label: expected an index, got 'x'"


class Turns(Toy):
    """Remembers which rows were begun and ended, in order; a row takes `row_s` in which other threads can go on."""

    def __init__(self, row_s: float) -> None:
        super().__init__()
        self.row_s = row_s
        self.said: list[tuple[str, int]] = []

    def prepare(self, params: Any, rng: Any) -> Any:
        self.said.append(("begin", params.value))
        time.sleep(self.row_s)
        self.said.append(("end", params.value))
        return super().prepare(params, rng)


def side_by_side(toy: Toy, turn: threading.Lock) -> list[Outcome]:
    """The outcomes of two stations that begin together, with one row each."""
    stations = [Station(toy, 9, turn) for _ in range(2)]
    together = threading.Barrier(2)

    def advance(number: int) -> list[Outcome]:
        together.wait(10)
        return stations[number].advance(orders(number + 1)).outcomes

    with ThreadPoolExecutor(2) as pool:
        return [outcome for outcomes in pool.map(advance, range(2)) for outcome in outcomes]


def test_stations_that_share_a_turn_prepare_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("brigantine.station._TURN_S", 10.0)
    toy = Turns(row_s=0.001)
    for _ in range(20):
        toy.said.clear()
        outcomes = side_by_side(toy, threading.Lock())

        assert [isinstance(outcome, Made) for _, _, outcome in outcomes] == [True, True]
        (first, one), (second, same), (third, other), (fourth, too) = toy.said
        assert [first, second, third, fourth] == ["begin", "end", "begin", "end"]
        assert (one, other) == (same, too)


def test_a_turn_that_lasts_is_not_waited_for():
    """A plugin that waits for something else, or decodes a large picture, has the cores to itself no longer."""
    toy = Turns(row_s=0.2)
    side_by_side(toy, threading.Lock())

    assert [event for event, _ in toy.said] == ["begin", "begin", "end", "end"]
