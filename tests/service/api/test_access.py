"""The access log: every request has its line, in order and with its own time, and lines are written together."""

import asyncio
import logging
import time
from collections.abc import Callable
from select import PIPE_BUF

import pytest
from brigantine.api import ACCESS, AccessLog

from tests.slack import SLACK


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was written so far, a string for each time."""
    caplog.set_level(logging.INFO, ACCESS)
    return lambda: [record.getMessage() for record in caplog.records if record.name == ACCESS]


def note(log: AccessLog, *names: str) -> None:
    for name in names:
        log.note("GET", "/livez", 200, 0.0123, name)


def test_lines_of_a_moment_are_written_at_once_and_none_waits_long(written: Callable[[], list[str]]):
    async def scenario() -> None:
        log = AccessLog()
        note(log, "one", "two")
        assert written() == []
        await asyncio.sleep(0.2 * SLACK)
        assert len(written()) == 1
        note(log, "three")
        await asyncio.sleep(0.2 * SLACK)

    asyncio.run(scenario())
    first, second = written()
    assert [line.split()[-1] for line in first.splitlines()] == ["one", "two"]
    assert [line.split()[-1] for line in second.splitlines()] == ["three"]


def test_a_line_has_the_form_and_the_time_of_all_others_in_the_log(
    written: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    record = logging.LogRecord(ACCESS, logging.INFO, "", 0, "GET /livez 200 12.3 ms mine", None, None)
    record.created, record.msecs = 1_800_000_000.25, 250.0
    expected = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s").format(record)
    monkeypatch.setattr(time, "time", lambda: record.created)

    async def scenario() -> None:
        log = AccessLog()
        note(log, "mine")
        log.flush()

    asyncio.run(scenario())
    assert written() == [expected]


def test_the_clock_goes_on_from_one_second_to_the_next(
    written: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    async def scenario() -> None:
        log = AccessLog()
        for now in (1_800_000_000.25, 1_800_000_000.75, 1_800_000_001.0):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            note(log, "x")
        log.flush()
        monkeypatch.undo()

    asyncio.run(scenario())
    seconds = [line.split()[1] for line in written()[0].splitlines()]
    assert [second[-4:] for second in seconds] == [",250", ",750", ",000"]
    assert seconds[0][:-4] == seconds[1][:-4] != seconds[2][:-4]


def test_what_is_written_at_once_goes_into_a_pipe_in_one_piece(written: Callable[[], list[str]]):
    names = [f"{number:04d}" for number in range(200)]

    async def scenario() -> None:
        log = AccessLog()
        note(log, *names)
        log.flush()
        log.flush()

    asyncio.run(scenario())
    assert max(len(lines) + 1 for lines in written()) in range(PIPE_BUF - 100, PIPE_BUF + 1)
    assert [line.split()[-1] for lines in written() for line in lines.splitlines()] == names
