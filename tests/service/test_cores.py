"""Cores are shared by all workers, come back from one that dies, and bound how many lanes work beside each other."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop
from brigantine.cores import Cores
from brigantine.job import Job
from brigantine.scheduler import Scheduler

from tests.e2e.server import until
from tests.service.toys import Speller, Toy, on_a_loop, scheduler, wanted
from tests.service.toys import until as soon


def submitted(one: Scheduler, *jobs: Job) -> list[Job]:
    for job in jobs:
        one.submit(job)
    return list(jobs)


# Another worker: does something with three cores, says what that gave, and waits for the end of its input.
WORKER = """
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from brigantine.cores import Cores

cores = Cores(3, Path(sys.argv[1]))
print(eval(sys.argv[2]), flush=True)
sys.stdin.read()
"""


@contextmanager
def another_worker(file: Path, does: str) -> Iterator[str]:
    """What the other worker says; it is killed at the end."""
    command = [sys.executable, "-c", WORKER, str(file), does]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        yield worker.stdout.readline().strip()
    finally:
        worker.kill()
        worker.communicate()


def test_each_core_is_taken_once_and_can_be_given_back(tmp_path: Path):
    for cores in (Cores(2), Cores(2, tmp_path / "cores")):
        assert [cores.take(), cores.take()] == [0, 1]
        assert [cores.take(), cores.take()] == [2, 3], "who does without one has a number of its own"
        for number in (3, 0, 2):
            cores.give(number)
        assert [cores.take(), cores.take_spare()] == [0, None]
        cores.close()


def test_another_worker_has_what_is_left_and_its_cores_come_back_when_it_is_killed(tmp_path: Path):
    cores = Cores(3, tmp_path / "cores")
    assert cores.take() == 0
    with another_worker(tmp_path / "cores", "[cores.take() for _ in range(3)]") as said:
        assert said == "[1, 2, 3]"
        assert cores.take_spare() is None
    assert until(lambda: cores.take_spare() == 1, 5)


def test_a_spare_core_is_none_that_was_in_use_a_moment_ago(tmp_path: Path):
    cores = Cores(3, tmp_path / "cores")
    with another_worker(tmp_path / "cores", "[cores.take() for _ in range(3)]"):
        assert cores.take_spare(patient=True) is None
    assert until(lambda: cores.take_spare() == 0, 5), "the next one in any case"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brigantine.cores._SPARE_S", 60.0)
        assert cores.take_spare(patient=True) is None
        assert cores.take() == 1, "it was not kept"

    assert until(lambda: cores.take_spare(patient=True) == 2, 5)


def test_a_workers_own_cores_are_in_nobody_elses_use():
    cores = Cores(1)
    assert cores.take_spare(patient=True) == 0
    assert cores.take_spare(patient=True) is None
    cores.give(0)

    assert cores.take_spare(patient=True) == 0


def test_they_are_all_taken_when_none_is_left_for_anybody(tmp_path: Path):
    assert not Cores(1).are_taken
    cores = Cores(3, tmp_path / "cores")
    with another_worker(tmp_path / "cores", "[cores.take() for _ in range(2)]"):
        assert not cores.are_taken
        assert cores.take() == 2, "it was only looked at"
        assert cores.are_taken
    assert until(lambda: not cores.are_taken, 5)


def test_nobody_takes_a_spare_core_while_somebody_does_without(tmp_path: Path):
    cores = Cores(3, tmp_path / "cores")
    assert [cores.take() for _ in range(3)] == [0, 1, 2]
    with another_worker(tmp_path / "cores", "cores.take()") as said:
        assert said == "3"
        cores.give(0)
        assert cores.take_spare() is None
        assert cores.take() == 0, "for the first batch of a worker it is there"
        cores.give(0)
    assert until(lambda: cores.take_spare() == 0, 5)

    places = [cores.take(), cores.take()]
    cores.give(places[0])
    cores.give(0)
    with another_worker(tmp_path / "cores", "cores.take_spare()") as said:
        assert said == "None"
    cores.give(places[1])
    with another_worker(tmp_path / "cores", "cores.take_spare()") as said:
        assert said == "0"


def test_who_does_without_trades_that_for_a_core():
    cores = Cores(1)
    assert cores.take() == 0
    place = cores.take()
    assert cores.trade(place) == place
    cores.give(0)
    assert cores.trade(place) == 0
    assert cores.trade(0) == 0
    cores.give(0)

    assert cores.take_spare() == 0, "nobody does without any more"


@on_a_loop
async def test_a_lane_that_begins_without_a_core_has_the_next_one():
    cores = Cores(2)
    others = [cores.take(), cores.take()]
    speller = Speller()
    speller.paced = True
    one = scheduler(speller, cores=cores)
    [job] = submitted(one, wanted(3))
    await soon(speller.stepped.is_set)
    assert one._works[0].core == 2
    for core in others:
        cores.give(core)
    assert cores.take_spare() is None
    for _ in range(2):
        speller.go_on.release()
    await soon(lambda: one._works[0].core == 0)
    assert cores.take_spare() == 1

    speller.go_on.release(10)
    await job.done
    await soon(lambda: one._works[0].core is None)
    one.close()


@on_a_loop
async def test_a_second_batch_waits_for_a_core_that_nobody_uses():
    cores = Cores(2)
    others = cores.take()
    toy = Toy()
    toy.gate.clear()
    one = scheduler(toy, 2, cores=cores)
    one._row_s = 5.0  # as if that had been measured
    first, second = wanted(0), wanted(1)
    one.submit(first)
    await soon(toy.entered.is_set)
    one.submit(second)
    await soon(lambda: not one._feeding)
    assert [work.puts for work in one._works] == [1, 0]

    cores.give(others)
    third = wanted(2)
    one.submit(third)
    await soon(lambda: [work.puts for work in one._works] == [1, 1])
    assert cores.take_spare() is None
    toy.gate.set()
    for job in (first, second, third):
        await job.done
    await soon(lambda: not any(work.puts for work in one._works))
    assert cores.take_spare() is not None
    one.close()


@on_a_loop
async def test_a_large_request_is_divided_evenly_among_lanes_with_nothing_to_do():
    toy = Toy()
    one = scheduler(toy, 2)
    job = wanted(1, rows=16)
    one.submit(job)
    await job.done
    one.close()

    assert [len(batch) for batch in toy.batches] == [8, 8]


@on_a_loop
async def test_a_second_thread_is_woken_only_for_a_request_that_lasts():
    toy = Toy()
    one = scheduler(toy, 2, wake_s=1.0)
    one._row_s = 0.2  # as if that had been measured
    toy.gate.clear()
    jobs = submitted(one, *(wanted(value) for value in range(3)))
    await soon(toy.entered.is_set)
    jobs += submitted(one, *(wanted(value) for value in range(3, 9)))
    await asyncio.sleep(0.05)
    assert [work.puts for work in one._works] == [1, 0], "each lasts for 0.2 s"
    for job in jobs:
        job.done.cancel()

    long = submitted(one, wanted(9, rows=5))[0]
    await soon(lambda: [work.puts for work in one._works] == [1, 1])
    toy.gate.set()
    await long.done
    one.close()


@on_a_loop
async def test_a_short_request_has_no_second_lane_while_a_core_is_free_for_a_moment():
    toy = Toy()
    toy.gate.clear()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("brigantine.cores._SPARE_S", 60.0)
        patch.setattr("brigantine.scheduler._LONG_S", 10.0)
        cores = Cores(3, Path(folder, "cores"))
        one = scheduler(toy, 2, cores=cores)
        one._row_s = 5.0  # as if that had been measured
        with another_worker(Path(folder, "cores"), "[cores.take(), cores.take()]"):
            jobs = submitted(one, wanted(0))
            await soon(toy.entered.is_set)
            jobs += submitted(one, wanted(1))
            await soon(lambda: not one._feeding)  # and has found no core
        jobs += submitted(one, wanted(2))
        await soon(lambda: not one._feeding)
        assert [work.puts for work in one._works] == [1, 0]
        for job in jobs:
            job.done.cancel()

        [long] = submitted(one, wanted(3, rows=8))
        await soon(lambda: [work.puts for work in one._works] == [1, 1])
        toy.gate.set()
        await long.done
        one.close()


@on_a_loop
async def test_nobody_waits_for_a_lane_that_does_not_end():
    toy = Toy()
    one = scheduler(toy, 2, wake_s=1.0)
    one._row_s = 0.001  # as if that had been measured
    toy.gate.clear()
    hung = submitted(one, wanted(0))[0]
    await soon(toy.entered.is_set)
    toy.entered.clear()
    [next_one] = submitted(one, wanted(1))
    await soon(toy.entered.is_set)  # by the other lane, without another request's coming

    assert [work.puts for work in one._works] == [1, 1]
    toy.gate.set()
    await asyncio.gather(hung.done, next_one.done)
    one.close()


async def asked_again(cores: Cores, lasts_s: float = 0) -> list[list[int]]:
    """The batches when one waits beside one that runs, whose client asks again as soon as it is answered.

    On the loop of the service: whether what comes is read before the next batch is a matter of its turns.
    """
    toy = Toy()
    run = toy.generate
    toy.generate = lambda batch: time.sleep(lasts_s) or run(batch)
    one = scheduler(toy, cores=cores)
    for _ in range(20):
        [first] = submitted(one, wanted(0))
        await first.done  # measures the rate
    toy.batches.clear()
    toy.gate.clear()
    [running] = submitted(one, wanted(1))
    await soon(lambda: toy.batches)
    ours, theirs = socket.socketpair()
    asyncio.get_running_loop().add_reader(ours, lambda: submitted(one, wanted(int(ours.recv(1)))))
    running.done.add_done_callback(lambda _: theirs.send(b"3"))
    toy.gate.set()
    time.sleep(0.05)  # noqa: ASYNC251 - what comes next is read in that turn of the loop in which it is done
    submitted(one, wanted(2))
    await soon(lambda: one.held == 0 and len(toy.batches) > 1)
    await asyncio.sleep(0.05)
    await soon(lambda: one.held == 0)
    asyncio.get_running_loop().remove_reader(ours)
    one.close()
    ours.close()
    theirs.close()
    return toy.batches


def test_where_every_core_has_a_batch_a_small_one_waits_for_who_is_just_answered():
    assert uvloop.run(asked_again(Cores(1))) == [[1], [2, 3]]


def test_where_one_has_none_or_it_is_large_it_waits_for_nobody():
    assert uvloop.run(asked_again(Cores(2))) == [[1], [2], [3]]
    assert uvloop.run(asked_again(Cores(1), lasts_s=0.02)) == [[1], [2], [3]]


@on_a_loop
async def test_where_every_core_has_a_batch_none_is_put_ahead():
    for count, waiting in ((2, 0), (1, 8)):
        toy = Toy()
        one = scheduler(toy, max_batch=64, cores=Cores(count))
        for _ in range(20):
            [first] = submitted(one, wanted(1, rows=16))
            await first.done  # measures the rate
        toy.batches.clear()
        toy.gate.clear()
        submitted(one, wanted(1))
        await soon(lambda: toy.batches)  # noqa: B023
        submitted(one, *(wanted(value) for value in range(8)))
        await asyncio.sleep(0.05)
        assert one.waiting == waiting
        toy.gate.set()
        await soon(lambda: one.held == 0)  # noqa: B023
        one.close()
