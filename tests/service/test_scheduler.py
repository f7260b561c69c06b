"""The scheduler's promises: everyone gets their own answer, whole, in order, or an error of their own."""

import math
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from brigantine import Done
from brigantine.errors import BadRequest, BrigantineError, GenerationFailed, NotReady, QueueFull
from brigantine.model import Arrays
from brigantine.plugin import run_batch
from brigantine.scheduler import Scheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.jobs import Ask, deliver


def double(batch: Arrays) -> Arrays:
    """y = 2x, except that 13 is poison."""
    if 13 in batch["x"]:
        raise ValueError("thirteen")
    return {"y": 2 * batch["x"]}


def at_once(generate: Callable[[Arrays], Arrays]) -> Callable[[Sequence[Any]], list[Done]]:
    """The one step of content that is made at once, as `Plugin.step` has it."""
    return lambda states: [Done(row) for row in run_batch(generate, states)]


class Gate:
    """A `generate` that waits until it is let through, and remembers the batches it was given."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, batch: Arrays) -> Arrays:
        self.sizes.append(len(batch["x"]))
        self.entered.set()
        assert self.open.wait(10)
        return double(batch)


def scheduler(generate: Callable[[Arrays], Arrays] = double, **options: int) -> Scheduler[float]:
    given = {"threads": 1, "max_batch": 8, "queue_rows": 1000} | options
    return Scheduler(at_once(generate), deliver, **given)  # type: ignore[arg-type]


def submitted(one: Scheduler[float], *values: float, within_s: float = math.inf) -> Ask:
    ask = Ask(*values)
    one.submit(ask, within_s)
    return ask


@pytest.fixture
def gated() -> Iterator[tuple[Scheduler[float], Gate]]:
    """A scheduler whose only thread is busy with one row, so that the next ones have to wait."""
    gate = Gate()
    one = scheduler(gate, queue_rows=20)
    submitted(one, 0)
    assert gate.entered.wait(10)
    yield one, gate
    gate.open.set()
    one.close()


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=20), min_size=1, max_size=30),
    st.integers(1, 3),
)
def test_everyone_gets_their_own_answer_whole_and_in_order(requests: list[list[int]], threads: int):
    one = scheduler(threads=threads)
    asks = [submitted(one, *request) for request in requests]

    for request, ask in zip(requests, asks, strict=True):
        assert ask.answer() == [2 * value for value in request]
    one.close()
    assert (one.held, one.waiting) == (0, 0)


def test_a_thousand_interleaved_requests_get_their_own_answers():
    one = scheduler(threads=2, queue_rows=100_000)
    answers: dict[tuple[int, ...], list[float]] = {}

    def send(sender: int) -> None:
        rng = random.Random(sender)
        for number in range(125):
            first = 1000 * (125 * sender + number) + 14  # no value is asked for twice
            values = tuple(range(first, first + rng.randint(1, 9)))
            answers[values] = submitted(one, *values).answer()

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    one.close()

    assert len(answers) == 1000
    assert all(answer == [2 * value for value in values] for values, answer in answers.items())


def test_what_arrives_during_a_run_forms_the_next_batches(gated: tuple[Scheduler[float], Gate]):
    one, gate = gated
    asks = [submitted(one, value) for value in range(10)]
    gate.open.set()

    assert [ask.answer() for ask in asks] == [[2 * value] for value in range(10)]
    assert gate.sizes == [1, 8, 2]


def test_a_long_request_does_not_keep_a_short_one_waiting_for_ever(gated: tuple[Scheduler[float], Gate]):
    one, gate = gated
    order: list[int] = []
    long, short = Ask(*range(12)), Ask(1)
    for ask in (long, short):
        ask.watch(lambda ask=ask: order.append(ask.rows))
        one.submit(ask)
    gate.open.set()
    short.answer()

    assert gate.sizes == [1, 8, 5]  # the short one rides with the long one's last rows
    assert order == [12, 1]


def test_waiting_rows_are_shared_between_the_threads():
    barrier = threading.Barrier(2)

    def meet(batch: Arrays) -> Arrays:
        barrier.wait(10)  # passes only when both threads are in here at once
        return double(batch)

    one = scheduler(meet, threads=2)
    assert submitted(one, 1, 2).answer() == [2, 4]
    one.close()


def test_a_device_that_runs_one_batch_at_a_time_gets_all_that_waits():
    gate = Gate()
    one = scheduler(gate, threads=2, parallel=1)
    asks = [submitted(one, 0)]
    assert gate.entered.wait(10)
    gate.entered.clear()
    asks += [submitted(one, 1, 2, 3, 4, 5, 6)]
    assert gate.entered.wait(10)
    gate.open.set()

    assert asks[1].answer() == [2, 4, 6, 8, 10, 12]
    assert gate.sizes == [1, 6]
    one.close()


@pytest.mark.parametrize("place", [0, 17, 63])
def test_one_poisonous_request_in_64_fails_alone(place: int):
    gate = Gate()
    one = scheduler(gate, max_batch=64)
    first = submitted(one, 0)
    assert gate.entered.wait(10)
    asks = [submitted(one, 13 if index == place else index + 14) for index in range(64)]
    gate.open.set()

    first.answer()
    for index, ask in enumerate(asks):
        if index == place:
            with pytest.raises(GenerationFailed, match=r"generate\(\) raised ValueError: thirteen"):
                ask.answer()
        else:
            assert ask.answer() == [2 * (index + 14)]
    one.close()
    assert len(gate.sizes) <= 2 + 2 * 6  # the lone first, the whole batch, and both halves on six levels


def test_the_other_rows_of_a_failed_request_are_not_run():
    gate = Gate()
    one = scheduler(gate, max_batch=4)
    first = submitted(one, 0)
    assert gate.entered.wait(10)
    doomed = submitted(one, *[13] * 100)
    gate.open.set()

    with pytest.raises(GenerationFailed):
        doomed.answer()
    first.answer()
    one.close()
    assert len(gate.sizes) == 2


def test_an_error_of_ours_reaches_its_client_unchanged():
    def refuse(batch: Arrays) -> Arrays:
        raise BadRequest("no such chord")

    one = scheduler(refuse)
    with pytest.raises(BadRequest, match="no such chord"):
        submitted(one, 1).answer()
    one.close()


@pytest.mark.parametrize("where", ["prepare", "render"])
def test_one_request_that_cannot_be_prepared_or_rendered_fails_alone(
    gated: tuple[Scheduler[float], Gate], where: str, monkeypatch: pytest.MonkeyPatch
):
    one, gate = gated
    asks = [submitted(one, value) for value in range(5)]
    monkeypatch.setattr(asks[3], where, lambda *args: 1 / 0)
    gate.open.set()

    for value, ask in enumerate(asks):
        if value == 3:
            with pytest.raises(GenerationFailed, match=rf"{where}\(\) raised ZeroDivisionError"):
                ask.answer()
        else:
            assert ask.answer() == [2 * value]


def test_a_thread_survives_whatever_a_plugin_raises():
    def leave(batch: Arrays) -> Arrays:
        if 13 in batch["x"]:
            raise SystemExit
        return double(batch)

    one = scheduler(leave)
    with pytest.raises(GenerationFailed, match="SystemExit"):
        submitted(one, 13).answer()
    assert submitted(one, 1).answer() == [2]
    one.close()


def test_rows_that_do_not_stack_are_run_apart(gated: tuple[Scheduler[float], Gate]):
    one, gate = gated
    flat = submitted(one, 1)
    long = Ask(1, shape=(3,))
    one.submit(long)
    gate.open.set()

    assert flat.answer() == [2]
    assert long.answer() == [6]  # the sum of three


def test_a_full_queue_refuses_with_a_time_to_come_back(gated: tuple[Scheduler[float], Gate]):
    one, _ = gated
    submitted(one, *range(12))
    with pytest.raises(
        QueueFull, match="13 rows are in work and 9 more do not fit into a queue of 20 rows"
    ) as caught:
        submitted(one, *range(9))

    assert 1 <= (caught.value.retry_after_s or 0) <= 120
    assert (one.waiting, one.held) == (12, 13)


def test_no_flood_gets_more_into_the_queue_than_it_may_hold():
    one = scheduler(lambda batch: time.sleep(0.002) or double(batch), threads=2, queue_rows=50)
    most, refused, before = 0, 0, 0
    tracemalloc.start()
    for number in range(5000):
        try:
            one.submit(Ask(*range(1 + number % 7)))
        except QueueFull:
            refused += 1
        most = max(most, one.held)
        if number == 1000:
            before = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    one.close()

    assert refused > 3000
    assert 43 < most <= 50
    assert grown < 300_000  # bytes: what 50 rows hold, and not what 4,000 requests would
    assert one.held == 0


def test_bytes_are_bounded_too():
    gate = Gate()
    one = scheduler(gate, queue_bytes=100)
    one.submit(Ask(0, size=90))
    assert gate.entered.wait(10)
    with pytest.raises(QueueFull, match="and 100 bytes"):
        one.submit(Ask(0, size=11))
    one.submit(Ask(0, size=10))
    gate.open.set()
    one.close()


def test_what_cannot_be_done_in_time_is_refused_now():
    def slow(batch: Arrays) -> Arrays:
        time.sleep(0.05 * len(batch["x"]))
        return double(batch)

    one = scheduler(slow)
    submitted(one, 1).answer()  # measures the rate
    waiting = submitted(one, *range(8))
    with pytest.raises(QueueFull, match=r"would be done in .* and the request waits 0\.1 s"):
        submitted(one, *range(4), within_s=0.1)
    assert submitted(one, 1, within_s=10).answer() == [2]
    waiting.answer()
    assert submitted(one, 1, within_s=0.001).answer() == [2]  # an idle scheduler takes anything
    one.close()


def test_a_cancelled_request_frees_its_place_at_once(gated: tuple[Scheduler[float], Gate]):
    one, gate = gated
    doomed = submitted(one, *range(12))
    kept = submitted(one, 5)
    one.cancel(doomed)

    assert (one.waiting, one.held) == (1, 2)
    gate.open.set()
    assert kept.answer() == [10]
    assert sum(gate.sizes) == 2
    assert not doomed.done.is_set()


def test_a_request_cancelled_in_its_run_frees_its_place_and_answers_nobody(
    gated: tuple[Scheduler[float], Gate],
):
    gate = Gate()
    one = scheduler(gate)
    running = submitted(one, 1)
    assert gate.entered.wait(10)
    one.cancel(running)
    assert one.held == 0
    gate.open.set()
    one.close()

    assert not running.done.is_set() and running.results == []


def test_closing_finishes_what_waits_and_takes_no_more():
    one = scheduler()
    asks = [submitted(one, value) for value in range(50)]
    one.close()

    assert all(ask.done.is_set() for ask in asks)
    with pytest.raises(NotReady):
        submitted(one, 1)


def test_times_are_told_apart(gated: tuple[Scheduler[float], Gate]):
    one, gate = gated
    ask = submitted(one, 1)
    time.sleep(0.05)
    gate.open.set()
    ask.answer()

    assert ask.taken_s - ask.submitted_s >= 0.05
    assert ask.submitted_s < ask.taken_s <= ask.started_s <= ask.computed_s <= ask.ended_s


def test_an_idle_scheduler_uses_no_time():
    one = scheduler(threads=2)
    submitted(one, 1).answer()
    before = time.process_time()
    time.sleep(0.5)
    used = time.process_time() - before
    one.close()

    assert used < 0.005


def test_a_wrong_number_of_states_is_the_plugins_fault():
    one: Scheduler[float] = Scheduler(lambda states: [], deliver, threads=1, max_batch=8, queue_rows=9)
    with pytest.raises(BrigantineError, match="a state for each of 1 rows, got 0"):
        submitted(one, 1).answer()
    one.close()
