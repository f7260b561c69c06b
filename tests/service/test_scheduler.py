"""The scheduler's promises: everyone gets their own answer, whole, in order, or an error of their own."""

import asyncio
import math
import random
import time
import tracemalloc
from contextlib import asynccontextmanager

import pytest
from brigantine.errors import BadRequest, GenerationFailed, NotReady, QueueFull
from brigantine.job import Job
from brigantine.scheduler import Scheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.toys import (
    POISON,
    REFUSED,
    Toy,
    doubled,
    made,
    on_a_loop,
    scheduler,
    until,
    wanted,
)


@asynccontextmanager
async def busy(**options: float):
    """A scheduler whose only lane is busy with one row until the gate is opened, so that the next ones wait."""
    toy = Toy()
    toy.gate.clear()
    one = scheduler(toy, 1, **options)
    first = wanted(0)
    one.submit(first)
    await until(toy.entered.is_set)
    try:
        yield one, toy, first
    finally:
        toy.gate.set()
        await until(lambda: one.held == 0)
        one.close()


def submitted(one: Scheduler, *jobs: Job) -> list[Job]:
    for job in jobs:
        one.submit(job)
    return list(jobs)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(1, 20), st.integers(0, 2**53 - 1)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 3),
)
def test_everyone_gets_their_own_answer_whole_and_in_order(
    requests: list[tuple[int, int, int]], threads: int
):
    async def scenario() -> None:
        one = scheduler(Toy(), threads)
        jobs = submitted(one, *(wanted(value, rows, seed) for value, rows, seed in requests))
        await asyncio.gather(*(job.done for job in jobs))

        assert [made(job) for job in jobs] == [doubled(job) for job in jobs]
        await until(lambda: one.held == 0)
        assert one.waiting == 0
        one.close()

    asyncio.run(scenario())


@on_a_loop
async def test_a_thousand_interleaved_requests_get_their_own_answers():
    one = scheduler(Toy(), 2, queue_rows=100_000)
    answered: list[Job] = []

    async def send(sender: int) -> None:
        rng = random.Random(sender)
        for _ in range(125):
            job = wanted(rng.randrange(1000), rng.randint(1, 9), rng.randrange(2**53))
            one.submit(job)
            await job.done
            answered.append(job)

    await asyncio.gather(*map(send, range(8)))
    one.close()

    assert len(answered) == 1000
    assert all(made(job) == doubled(job) for job in answered)


@on_a_loop
async def test_the_order_of_arrival_changes_no_answer():
    jobs = {value: (value, 1 + value % 5, 7 * value) for value in range(40)}
    answers: list[dict[int, list[float]]] = []
    for number in range(3):
        one = scheduler(Toy(), 2)
        order = random.Random(number).sample(sorted(jobs), len(jobs))
        sent = {value: wanted(*jobs[value]) for value in order}
        submitted(one, *sent.values())
        await asyncio.gather(*(job.done for job in sent.values()))
        answers.append({value: made(job) for value, job in sorted(sent.items())})
        one.close()

    assert answers[0] == answers[1] == answers[2]


@on_a_loop
async def test_what_arrives_during_a_run_forms_the_next_batches():
    async with busy() as (one, toy, _):
        jobs = submitted(one, *(wanted(value) for value in range(1, 11)))
        await asyncio.sleep(0.05)
        toy.gate.set()
        await asyncio.gather(*(job.done for job in jobs))

        assert [len(batch) for batch in toy.batches] == [1, 8, 2]


@on_a_loop
async def test_a_short_request_rides_with_the_last_rows_of_a_long_one():
    async with busy() as (one, toy, _):
        long, short = submitted(one, wanted(1, rows=12), wanted(2))
        toy.gate.set()
        await short.done
        await long.done

        assert [len(batch) for batch in toy.batches] == [1, 8, 5]


@on_a_loop
async def test_waiting_rows_are_shared_between_the_lanes():
    toy = Toy()
    one = scheduler(toy, threads=2)
    toy.gate.clear()
    [job] = submitted(one, wanted(1, rows=2))
    await until(lambda: len(toy.batches) == 2)  # each lane has one of the rows, and is in there
    toy.gate.set()
    await job.done

    assert made(job) == doubled(job)
    one.close()


@on_a_loop
async def test_a_device_that_runs_one_batch_at_a_time_gets_all_that_waits():
    toy = Toy()
    toy.gate.clear()
    one = scheduler(toy, threads=2, parallel=1)
    first = wanted(0)
    one.submit(first)
    await until(toy.entered.is_set)
    job = wanted(1, rows=6)
    one.submit(job)
    await until(lambda: len(toy.batches) == 2)
    toy.gate.set()
    await job.done

    assert [len(batch) for batch in toy.batches] == [1, 6]
    one.close()


@pytest.mark.parametrize("place", [0, 17, 63])
def test_one_poisonous_request_in_64_fails_alone(place: int):
    async def scenario() -> None:
        async with busy(max_batch=64) as (one, toy, _):
            jobs = submitted(one, *(wanted(POISON if index == place else index) for index in range(64)))
            toy.gate.set()
            outcomes = await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)

            with pytest.raises(GenerationFailed, match=r"generate\(\) raised ValueError: thirteen"):
                await jobs.pop(place).done
            assert outcomes.count(None) == 63
            assert [made(job) for job in jobs] == [doubled(job) for job in jobs]
            assert len(toy.batches) <= 2 + 2 * math.log2(64)

    asyncio.run(scenario())


@on_a_loop
async def test_the_other_rows_of_a_failed_request_are_not_run():
    async with busy(max_batch=4) as (one, toy, _):
        [doomed] = submitted(one, wanted(POISON, rows=100))
        toy.gate.set()
        with pytest.raises(GenerationFailed):
            await doomed.done
        await asyncio.sleep(0.05)

        assert one.waiting == 0
        assert len(toy.batches) in (2, 3), "its first batch, and perhaps one that was put ahead"


@on_a_loop
async def test_an_error_of_ours_reaches_its_client_unchanged():
    one = scheduler(Toy())
    [job] = submitted(one, wanted(REFUSED))
    with pytest.raises(BadRequest, match="no such chord"):
        await job.done
    one.close()


@on_a_loop
async def test_a_full_queue_refuses_with_a_time_to_come_back():
    async with busy(queue_rows=20) as (one, _, _first):
        submitted(one, wanted(1, rows=12))
        with pytest.raises(
            QueueFull, match="13 rows are in work and 9 more do not fit into a queue of 20 rows"
        ) as e:
            one.submit(wanted(1, rows=9))

        assert 1 <= (e.value.retry_after_s or 0) <= 120
        assert one.held == 13
        submitted(one, wanted(1, rows=7, size=9))
        with pytest.raises(QueueFull, match="20 rows are in work and no more fit into a queue of 20 rows"):
            one.check()  # before anybody knows how many are asked for


@on_a_loop
async def test_no_flood_gets_more_into_the_queue_than_it_may_hold():
    one = scheduler(Toy(), threads=2, queue_rows=50)
    most, refused, before = 0, 0, 0
    tracemalloc.start()
    for number in range(5000):
        try:
            one.submit(wanted(1, rows=1 + number % 7))
        except QueueFull:
            refused += 1
        most = max(most, one.held)
        if number % 40 == 0:
            await asyncio.sleep(0)
        if number == 1000:
            before = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    await until(lambda: one.held == 0)
    one.close()

    assert refused > 1000
    assert 43 < most <= 50
    assert grown < 300_000  # bytes: what 50 rows hold, and not what 4,000 requests would


@on_a_loop
async def test_bytes_are_bounded_too():
    async with busy(queue_bytes=100) as (one, _, _first):
        one.submit(wanted(0, size=90))
        with pytest.raises(QueueFull, match="and 100 bytes"):
            one.submit(wanted(0, size=11))
        one.submit(wanted(0, size=10))


@on_a_loop
async def test_what_cannot_be_done_in_time_is_refused_now():
    toy = Toy()
    run = toy.generate
    toy.generate = lambda batch: time.sleep(0.05 * len(batch["x"])) or run(batch)
    one = scheduler(toy)
    [first] = submitted(one, wanted(1))
    await first.done  # measures the rate
    [waiting] = submitted(one, wanted(1, rows=8))
    with pytest.raises(QueueFull, match=r"would be done in .* and the request waits 0\.1 s"):
        one.submit(wanted(1, rows=4), within_s=0.1)
    patient = wanted(1)
    one.submit(patient, within_s=10)
    await asyncio.gather(waiting.done, patient.done)
    await until(lambda: one.held == 0)
    one.submit(late := wanted(1), within_s=0.001)  # an idle scheduler takes anything
    await late.done
    one.close()


@on_a_loop
async def test_of_a_batch_made_in_steps_the_first_row_to_end_tells_no_rate():
    toy = Toy()
    run = toy.generate
    toy.generate = lambda batch: time.sleep(0.05 * len(batch["x"])) or run(batch)
    one = scheduler(toy, max_batch=4, steps=True)
    [first] = submitted(one, wanted(1))
    await first.done
    [waiting] = submitted(one, wanted(1, rows=3))
    one.submit(taken := wanted(1), within_s=0.001)
    await asyncio.gather(waiting.done, taken.done)

    [waiting] = submitted(one, wanted(1, rows=8))
    with pytest.raises(QueueFull, match="would be done in"):
        one.submit(wanted(1), within_s=0.001)
    await waiting.done
    one.close()


@on_a_loop
async def test_a_cancelled_request_frees_its_place_at_once():
    async with busy() as (one, toy, _):
        doomed, kept = submitted(one, wanted(1, rows=12), wanted(5))
        begin = time.perf_counter()
        doomed.done.cancel()
        await until(lambda: one.held == 2)
        assert time.perf_counter() - begin < 0.1
        assert one.waiting == 1
        toy.gate.set()
        await kept.done

        assert sum(map(len, toy.batches)) == 2


@on_a_loop
async def test_a_request_cancelled_in_its_run_frees_its_place_and_disturbs_nobody():
    async with busy() as (one, toy, running):
        running.done.cancel()
        await until(lambda: one.held == 0)
        [other] = submitted(one, wanted(3))
        toy.gate.set()
        await other.done

        assert made(other) == doubled(other)


@on_a_loop
async def test_a_lane_gets_its_next_batch_before_it_is_done_when_batches_are_short():
    toy = Toy()
    one = scheduler(toy, max_batch=64)
    for _ in range(20):
        [first] = submitted(one, wanted(1, rows=16))
        await first.done  # measures the rate
    toy.gate.clear()
    ran = len(toy.batches)
    [running] = submitted(one, wanted(1))
    await until(lambda: len(toy.batches) == ran + 1)
    ahead = submitted(one, *(wanted(value) for value in range(8)))
    await until(lambda: one.waiting == 0)  # while the lane is still busy
    assert not running.done.done()
    toy.gate.set()
    await asyncio.gather(*(job.done for job in ahead))

    assert [made(job) for job in ahead] == [doubled(job) for job in ahead]
    one.close()


@on_a_loop
async def test_behind_a_full_batch_there_is_a_full_one():
    toy = Toy()
    one = scheduler(toy, wake_s=1.0)
    one._row_s = 0.001  # as if that had been measured: too long for a lane beside others
    toy.gate.clear()
    jobs = submitted(one, *(wanted(value) for value in range(8)))
    await until(lambda: len(toy.batches) == 1)
    jobs += submitted(one, *(wanted(value) for value in range(8, 13)))
    await until(lambda: one.waiting == 0)
    jobs += submitted(one, *(wanted(value) for value in range(13, 32)))
    await asyncio.sleep(0.05)
    assert one.waiting == 19, "three more would be no batch worth being put ahead"
    toy.gate.set()
    await asyncio.gather(*(job.done for job in jobs))

    assert [made(job) for job in jobs] == [doubled(job) for job in jobs]
    assert max(map(len, toy.batches)) == 8
    one.close()


@on_a_loop
async def test_who_hangs_up_is_not_made_though_it_was_put_ahead():
    toy = Toy()
    one = scheduler(toy, wake_s=1.0)
    one._row_s = 0.001  # as if that had been measured
    toy.gate.clear()
    jobs = submitted(one, *(wanted(value) for value in range(8)))
    await until(lambda: len(toy.batches) == 1)
    ahead = submitted(one, *(wanted(value) for value in range(8, 13)))
    await until(lambda: one.waiting == 0)
    for job in ahead[:4]:
        job.done.cancel()
    await asyncio.sleep(0.05)
    toy.gate.set()
    await asyncio.gather(*(job.done for job in (*jobs, ahead[4])))

    assert toy.batches == [[*range(8)], [12]]
    assert one.held == 0
    one.close()


@on_a_loop
async def test_a_lane_with_long_batches_is_given_one_at_a_time():
    toy = Toy()
    run = toy.generate
    toy.generate = lambda batch: time.sleep(0.02) or run(batch)
    one = scheduler(toy)
    [first] = submitted(one, wanted(1))
    await first.done  # measures the rate
    toy.gate.clear()
    submitted(one, wanted(1))
    await until(lambda: len(toy.batches) == 2)
    submitted(one, *(wanted(value) for value in range(8)))
    await asyncio.sleep(0.05)

    assert one.waiting == 8  # another lane, were there one, could take them
    toy.gate.set()
    await until(lambda: one.held == 0)
    one.close()


@on_a_loop
async def test_a_closed_scheduler_takes_no_more_and_fails_what_waits():
    toy = Toy()
    toy.gate.clear()
    one = scheduler(toy)
    running, waiting = submitted(one, wanted(1)), submitted(one, wanted(2, rows=20))
    await until(toy.entered.is_set)
    toy.gate.set()
    one.close()

    for job in running + waiting:
        with pytest.raises(NotReady, match="has stopped"):
            await job.done
    with pytest.raises(NotReady, match="is stopping"):
        one.submit(wanted(1))


@on_a_loop
async def test_times_are_told_apart():
    async with busy() as (one, toy, _):
        [job] = submitted(one, wanted(1))
        await asyncio.sleep(0.05)
        toy.gate.set()
        await job.done

        row = job.made[0]
        assert row.taken_s - job.submitted_s >= 0.05
        assert job.submitted_s < row.taken_s <= row.started_s <= row.computed_s <= time.perf_counter()


@on_a_loop
async def test_an_idle_scheduler_uses_no_time():
    one = scheduler(Toy(), threads=2)
    [job] = submitted(one, wanted(1))
    await job.done
    before = time.process_time()
    await asyncio.sleep(0.5)
    used = time.process_time() - before
    one.close()

    assert used < 0.05  # a lane that polled would take all of it
