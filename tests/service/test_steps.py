"""Content that is made in steps: rows join and leave between them, and nobody's company matters."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from brigantine.errors import GenerationFailed
from brigantine.scheduler import Scheduler
from brigantine.station import Fault, Order, Report
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.toys import Speller, made, on_a_loop, scheduler, until, wanted


class Fragile:
    """A lane that a test reports for."""

    ready = True

    def __init__(self) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_report: Callable[[Report], None] = lambda report: None
        self.orders: Sequence[Order] = ()

    def put(self, orders: Sequence[Order], gone: Sequence[int]) -> None:
        self.orders = orders

    def close(self) -> None:
        pass


def total(value: int) -> float:
    return value * (value + 1) / 2


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), min_size=1, max_size=20),
    st.integers(1, 3),
    st.sets(st.integers(0, 19), max_size=5),
)
def test_everyone_gets_all_their_steps_whoever_comes_and_goes(
    requests: list[tuple[int, int]], threads: int, hang_up: set[int]
):
    async def scenario() -> None:
        speller = Speller()
        one = scheduler(speller, threads, max_batch=4)
        jobs = [wanted(value, rows) for value, rows in requests]
        for number, job in enumerate(jobs):
            one.submit(job)
            if number % 3 == 2:
                await asyncio.sleep(0.0005)
        for number in hang_up & set(range(len(jobs))):
            jobs[number].done.cancel()
        await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)

        for (value, rows), job in zip(requests, jobs, strict=True):
            assert job.done.cancelled() or made(job) == [total(value)] * rows
        assert max(map(len, speller.batches), default=0) <= 4
        await until(lambda: one.held == 0)
        await until(lambda: not any(work.puts or work.rows or work.jobs or work.gone for work in one._works))
        one.close()

    asyncio.run(scenario())


@asynccontextmanager
async def paced():
    """A scheduler that takes one step each time it is told to."""
    speller = Speller()
    speller.paced = True
    one = scheduler(speller, max_batch=4)

    async def step() -> None:
        speller.stepped.clear()
        speller.go_on.release()
        await until(speller.stepped.is_set)

    try:
        yield one, speller, step
    finally:
        speller.paced = False
        speller.go_on.release()
        one.close()


@on_a_loop
async def test_a_new_row_joins_between_steps_and_a_finished_one_leaves():
    async with paced() as (one, speller, step):
        long, short = wanted(5), wanted(2)
        one.submit(long)
        await until(speller.stepped.is_set)
        await step()
        one.submit(short)
        await asyncio.sleep(0.01)
        for _ in range(3):
            await step()
        speller.go_on.release()
        await asyncio.gather(long.done, short.done)

        assert (made(long), made(short)) == ([15], [3])
        assert speller.batches == [[5], [5], [5, 2], [5, 2], [5]]


@on_a_loop
async def test_who_hangs_up_leaves_between_steps():
    async with paced() as (one, speller, step):
        gone, stays = wanted(9), wanted(3)
        one.submit(gone)
        await until(speller.stepped.is_set)
        one.submit(stays)
        await asyncio.sleep(0.01)
        await step()
        gone.done.cancel()
        await until(lambda: one.held == 1)
        await step()  # the one that was under way
        await step()
        speller.go_on.release()
        await stays.done

        assert made(stays) == [6]
        assert [state.value for state in speller.left] == [9]
        assert speller.batches == [[9], [9, 3], [3], [3]]


@on_a_loop
async def test_who_hangs_up_leaves_though_steps_were_not_announced_and_a_batch_was_put_behind():
    speller = Speller()
    speller.paced = True
    one = scheduler(speller, max_batch=4, wake_s=1.0, steps=False)
    one._row_s = 0.0001  # as if that had been measured
    gone, stay = [[wanted(value) for _ in range(4)] for value in (9, 2)]
    for job in gone:
        one.submit(job)
    await until(speller.stepped.is_set)
    for job in stay:
        one.submit(job)
    await until(lambda: one.waiting == 0)
    speller.go_on.release()
    await until(lambda: len(speller.batches) == 1)
    await asyncio.sleep(0.05)  # it is told that they go on
    last = wanted(1)
    one.submit(last)
    gone[0].done.cancel()
    await until(lambda: one.held == 8)
    await asyncio.sleep(0.05)
    assert one.waiting == 1
    for job in gone:
        job.done.cancel()
    await until(lambda: one.held == 5)
    await asyncio.sleep(0.05)
    speller.go_on.release(9)
    await asyncio.gather(*(job.done for job in (*stay, last)))
    one.close()

    assert [made(job) for job in stay] == [[3]] * 4
    assert speller.batches == [[9] * 4, [9] * 4, [2] * 4, [2] * 4, [1]]
    assert (one.held, one.waiting) == (0, 0)


@on_a_loop
async def test_the_last_one_that_hangs_up_gives_back_its_state_too():
    async with paced() as (one, speller, _):
        gone = wanted(9)
        one.submit(gone)
        await until(speller.stepped.is_set)
        gone.done.cancel()
        await until(lambda: one.held == 0)
        speller.go_on.release()
        await until(lambda: speller.left)

        assert speller.batches == [[9]]


@on_a_loop
async def test_the_place_of_a_finished_row_is_taken_by_a_waiting_one():
    async with paced() as (one, speller, step):
        long, short = wanted(6), wanted(1, rows=7)
        one.submit(long)
        one.submit(short)
        await until(speller.stepped.is_set)
        for waiting in (1, 0):
            await step()
            await until(lambda waiting=waiting: one.waiting == waiting)
            await step()  # a lane does not wait to be given more: the next step may have begun without
        await step()
        assert speller.batches[0] == [6, 1, 1, 1]
        assert sum(batch.count(1) for batch in speller.batches) == 7
        speller.go_on.release(9)
        await long.done
        await short.done


@on_a_loop
async def test_a_step_that_raises_costs_only_the_request_that_makes_it():
    speller = Speller()
    speller.poison = 7
    one = scheduler(speller)
    jobs = {value: wanted(value, rows=2) for value in (5, 7, 3, 4)}
    for job in jobs.values():
        one.submit(job)
    await asyncio.gather(*(job.done for job in jobs.values()), return_exceptions=True)

    with pytest.raises(GenerationFailed, match=r"step\(\) raised ValueError: stuck"):
        await jobs.pop(7).done
    for value, job in jobs.items():
        assert made(job) == [total(value)] * 2
    one.close()
    assert [state.value for state in speller.left] == [7, 7]


@on_a_loop
async def test_a_lane_that_is_lost_fails_what_ran_between_steps_and_goes_on():
    lane = Fragile()
    one = Scheduler([lane], max_batch=4, queue_rows=100, steps=True)
    running, waiting = wanted(9), wanted(2)
    one.submit(running)
    await until(lambda: lane.orders)
    lane.on_report(Report([], [], 0.0, 0.1, running=1))  # its first step is done, and it runs on
    lane.on_report(Report([], [], 0.0, 0.1, puts=0, running=1))
    lane.on_report(Report([], [], 0.0, 0.0, puts=0, lost=Fault(GenerationFailed("it ended"), "")))
    one.submit(waiting)

    with pytest.raises(GenerationFailed, match="it ended"):
        await running.done
    await until(lambda: [order.job for order in lane.orders] == [waiting.number])


@on_a_loop
async def test_what_comes_joins_the_lane_that_goes_on_with_its_steps():
    speller = Speller()
    one = scheduler(speller, 2, max_batch=4, wake_s=1.0)
    long = wanted(50_000)
    one.submit(long)
    await until(lambda: len(speller.batches) > 3)
    one._works.reverse()  # a lane with nothing to do is looked at first
    short = wanted(2)
    one.submit(short)
    await short.done
    await long.done
    one.close()

    assert [50_000, 2] in speller.batches
