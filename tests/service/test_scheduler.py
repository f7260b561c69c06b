"""The scheduler's promises: everyone gets their own answer, whole, in order, or an error of their own."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from brigantine.errors import BadRequest, GenerationFailed, NotReady, QueueFull
from brigantine.model import Arrays
from brigantine.scheduler import Scheduler, run_batch
from hypothesis import given, settings
from hypothesis import strategies as st


def rows(*values: float) -> list[Arrays]:
    return [{"x": np.asarray(value, dtype=np.float64)} for value in values]


def answers(batched: list[Arrays]) -> list[float]:
    return [float(row["y"]) for row in batched]


def double(batch: Arrays) -> Arrays:
    """y = 2x, except that 13 is poison."""
    if 13 in batch["x"]:
        raise ValueError("thirteen")
    return {"y": 2 * batch["x"]}


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


def scheduler(generate: object = double, **options: int) -> Scheduler:
    return Scheduler(generate, **{"threads": 1, "max_batch": 8, "queue_rows": 1000} | options)  # type: ignore[arg-type]


@pytest.fixture
def gated() -> Iterator[tuple[Scheduler, Gate]]:
    """A scheduler whose only thread is busy with one row, so that the next ones have to wait."""
    gate = Gate()
    one = scheduler(gate, queue_rows=20)
    one.submit(rows(0))
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
    futures = [one.submit(rows(*request)) for request in requests]

    for request, future in zip(requests, futures, strict=True):
        assert answers(future.result(10).rows) == [2 * value for value in request]
    one.close()


def test_what_arrives_during_a_run_forms_the_next_batches(gated: tuple[Scheduler, Gate]):
    one, gate = gated
    futures = [one.submit(rows(value)) for value in range(10)]
    gate.open.set()

    assert [answers(future.result(10).rows) for future in futures] == [[2 * value] for value in range(10)]
    assert gate.sizes == [1, 8, 2]


def test_waiting_rows_are_shared_between_the_threads():
    barrier = threading.Barrier(2)

    def meet(batch: Arrays) -> Arrays:
        barrier.wait(10)  # passes only when both threads are in here at once
        return double(batch)

    one = scheduler(meet, threads=2)
    assert answers(one.submit(rows(1, 2)).result(10).rows) == [2, 4]
    one.close()


@pytest.mark.parametrize("place", [0, 17, 63])
def test_one_poisonous_request_in_64_fails_alone(place: int):
    gate = Gate()
    one = scheduler(gate, max_batch=64)
    first = one.submit(rows(0))
    assert gate.entered.wait(10)
    futures = [one.submit(rows(13 if index == place else 1)) for index in range(64)]
    gate.open.set()

    first.result(10)
    for index, future in enumerate(futures):
        if index == place:
            with pytest.raises(GenerationFailed, match=r"generate\(\) raised ValueError: thirteen"):
                future.result(10)
        else:
            assert answers(future.result(10).rows) == [2]
    one.close()
    assert len(gate.sizes) <= 2 + 2 * 6  # the lone first, the whole batch, and both halves on six levels


def test_the_other_rows_of_a_failed_request_are_not_run():
    gate = Gate()
    one = scheduler(gate, max_batch=4)
    first = one.submit(rows(0))
    assert gate.entered.wait(10)
    doomed = one.submit(rows(*[13] * 100))
    gate.open.set()

    with pytest.raises(GenerationFailed):
        doomed.result(10)
    first.result(10)
    one.close()
    assert len(gate.sizes) == 2


def test_an_error_of_ours_reaches_its_client_unchanged():
    def refuse(batch: Arrays) -> Arrays:
        raise BadRequest("no such chord")

    one = scheduler(refuse)
    with pytest.raises(BadRequest, match="no such chord"):
        one.submit(rows(1)).result(10)
    one.close()


def test_rows_that_do_not_stack_are_run_apart(gated: tuple[Scheduler, Gate]):
    one, gate = gated
    flat = one.submit(rows(1))
    long = one.submit([{"x": np.ones(3)}])
    gate.open.set()

    assert answers(flat.result(10).rows) == [2]
    assert long.result(10).rows[0]["y"].tolist() == [2, 2, 2]


def test_a_full_queue_refuses_with_a_time_to_come_back(gated: tuple[Scheduler, Gate]):
    one, _ = gated
    one.submit(rows(*range(12)))
    with pytest.raises(
        QueueFull, match="12 rows wait and 9 more do not fit into a queue of 20 rows"
    ) as caught:
        one.submit(rows(*range(9)))

    assert 1 <= (caught.value.retry_after_s or 0) <= 120
    assert one.waiting == 12


def test_bytes_that_wait_are_bounded_too():
    gate = Gate()
    one = scheduler(gate, queue_bytes=100)
    one.submit(rows(0))
    assert gate.entered.wait(10)
    one.submit([{"x": np.zeros(10)}])  # 80 bytes
    with pytest.raises(QueueFull, match="and 100 bytes"):
        one.submit([{"x": np.zeros(3)}])
    gate.open.set()
    one.close()


def test_what_cannot_be_done_in_time_is_refused_now():
    def slow(batch: Arrays) -> Arrays:
        time.sleep(0.05 * len(batch["x"]))
        return double(batch)

    one = scheduler(slow)
    one.submit(rows(1)).result(10)  # measures the rate
    waiting = one.submit(rows(*range(8)))
    with pytest.raises(QueueFull, match=r"would be done in .* and the request waits 0\.1 s"):
        one.submit(rows(*range(4)), within_s=0.1)
    assert answers(one.submit(rows(1), within_s=10).result(10).rows) == [2]
    waiting.result(10)
    while one._running:
        time.sleep(0.01)
    assert answers(one.submit(rows(1), within_s=0.001).result(10).rows) == [
        2
    ]  # an idle scheduler takes anything
    one.close()


def test_a_cancelled_request_frees_its_place_at_once(gated: tuple[Scheduler, Gate]):
    one, gate = gated
    doomed = one.submit(rows(*range(12)))
    kept = one.submit(rows(5))
    assert doomed.cancel()

    assert one.waiting == 1
    gate.open.set()
    assert answers(kept.result(10).rows) == [10]
    assert sum(gate.sizes) == 2


def test_closing_finishes_what_waits_and_takes_no_more():
    one = scheduler()
    futures = [one.submit(rows(value)) for value in range(50)]
    one.close()

    assert all(future.done() for future in futures)
    with pytest.raises(NotReady):
        one.submit(rows(1))


def test_times_are_told_apart(gated: tuple[Scheduler, Gate]):
    one, gate = gated
    begin = time.perf_counter()
    future = one.submit(rows(1))
    time.sleep(0.05)
    gate.open.set()

    batched = future.result(10)
    assert batched.queue_s >= 0.05
    assert 0 <= batched.compute_s <= time.perf_counter() - begin - 0.05


def test_a_wrong_number_of_rows_is_the_plugins_fault():
    with pytest.raises(GenerationFailed, match="y has 1 for 2"):
        run_batch(lambda batch: {"y": batch["x"][:1]}, rows(1, 2))


def test_a_row_keeps_its_input_beside_its_output():
    [row] = run_batch(double, rows(4))
    assert (row["x"], row["y"]) == (4, 8)
