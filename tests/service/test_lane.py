"""A lane tells what it makes: at once what somebody waits for, and together what only goes on."""

import asyncio
import threading
import time
from typing import Any, cast

import pytest
from brigantine import Done, Media, Part, Plugin
from brigantine.lane import ThreadLane
from brigantine.station import Order, Report, Station

from tests.service.toys import Spell, Speller, on_a_loop, until, wanted

STEPS = 40


class Teller(Speller):
    """Shows the number of each step from the second on."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.pause_s = pause_s

    def step(self, states: Any) -> Any:
        time.sleep(self.pause_s)
        return super().step(states)

    def _next(self, spell: Spell) -> Any:
        after = super()._next(spell)
        if isinstance(after, Done) or after.steps == 1:
            return after
        return Part(after, Media("text/plain", b"%d " % after.steps))


async def reports(parts_s: float, *values: int, pause_s: float = 0) -> list[Report]:
    """What a lane tells of rows of so many steps each, of at least `pause_s`."""
    told: list[Report] = []
    lane = ThreadLane(Station(cast("Plugin[Any]", Teller(pause_s)), 1000), 8, parts_s)
    lane.on_report = told.append
    lane.put([order(number, value) for number, value in enumerate(values)], [])
    await until(lambda: sum(len(report.outcomes) for report in told) == len(values))
    await asyncio.sleep(0)
    lane.close()
    return told


def order(number: int, value: int) -> Order:
    job = wanted(value)
    return Order(number, job.body, None, number, "text/plain", 0, 1, True)


def shown(told: list[Report], number: int) -> list[int]:
    return [int(media.body) for report in told for job, _, media in report.parts if job == number]


@on_a_loop
async def test_parts_that_follow_others_wait_and_none_is_lost():
    told = await reports(60, STEPS)

    assert [len(report.parts) for report in told] == [0, 1, STEPS - 3], "the first one at once"
    assert shown(told, 0) == list(range(2, STEPS))
    assert sum(len(report.steps) for report in told) == STEPS


@on_a_loop
async def test_they_wait_no_longer_than_they_may():
    for told in (await reports(0, STEPS), await reports(0, STEPS, STEPS)):
        assert len(told) == STEPS
        assert all(report.parts for report in told[1:-1])


@on_a_loop
async def test_they_wait_for_some_steps_and_not_for_the_end():
    told = await reports(0.02, STEPS, pause_s=0.004)

    assert 4 <= len(told) <= STEPS / 2  # 160 ms, if nobody holds it up


@pytest.mark.parametrize("values", [(3, STEPS), (STEPS, 3, 7)])
def test_an_end_takes_along_what_waits(values: tuple[int, ...]):
    told = asyncio.run(reports(60, *values))

    assert len(told) == 2 + len(set(values))
    for number, value in enumerate(values):
        assert shown(told, number) == list(range(2, value))


class Slow(Speller):
    """Begins when it is let, and notes how many rows each step has."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.rows: list[int] = []

    def step(self, states: Any) -> Any:
        self.let.wait(10)
        self.rows.append(len(states))
        return super().step(states)


@on_a_loop
async def test_what_was_put_while_a_batch_ran_is_one_batch():
    told: list[Report] = []
    plugin = Slow()
    lane = ThreadLane(Station(cast("Plugin[Any]", plugin), 1000), 8)
    lane.on_report = told.append
    lane.put([order(0, 1)], [])
    await asyncio.sleep(0.05)
    lane.put([order(1, 1)], [])
    lane.put([order(2, 1), order(3, 1)], [1])
    lane.put([order(4, 1)], [])
    plugin.let.set()
    await until(lambda: sum(len(report.outcomes) for report in told) == 4)
    lane.close()

    assert plugin.rows == [1, 3], "one of them left before it had joined"
    assert [report.puts for report in told] == [1, 3]
    assert {job for report in told for job, _, _ in report.outcomes} == {0, 2, 3, 4}


@on_a_loop
async def test_what_does_not_fit_into_a_batch_is_the_next():
    told: list[Report] = []
    plugin = Slow()
    lane = ThreadLane(Station(cast("Plugin[Any]", plugin), 1000), 4)
    lane.on_report = told.append
    lane.put([order(0, 1)], [])
    await asyncio.sleep(0.05)
    for job in (1, 2, 3):
        lane.put([order(job, 1)._replace(rows=3)], [])
    plugin.let.set()
    await until(lambda: sum(len(report.outcomes) for report in told) == 10)
    lane.close()

    assert plugin.rows == [1, 4, 4, 1]
    assert [report.puts for report in told] == [1, 1, 1, 1]


@on_a_loop
async def test_a_lane_that_ends_begins_nothing_more():
    plugin = Slow()
    lane = ThreadLane(Station(cast("Plugin[Any]", plugin), 1000), 8)
    lane.put([order(0, 1)], [])
    await asyncio.sleep(0.05)
    lane.put([order(1, 1)], [])
    threading.Timer(0.05, plugin.let.set).start()
    lane.close()

    assert plugin.rows == [1]
