"""When a worker is started in the place of one that has ended."""

import signal
from pathlib import Path

import pytest
from brigantine import supervisor
from brigantine.shared import Shared


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    return clock


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    (tmp_path / "counts").mkdir()
    return Shared(tmp_path)


def waited(nurse: supervisor._Nurse, clock: Clock, exit_code: int = -signal.SIGKILL) -> float:
    nurse.ended(process_pid=7, exit_code=exit_code)
    begin = clock.now
    while not nurse.is_due():
        clock.now += 0.5
    return clock.now - begin


def test_one_that_crashes_again_and_again_is_started_later_each_time(shared: Shared, clock: Clock):
    nurse = supervisor._Nurse(shared)

    assert [waited(nurse, clock) for _ in range(7)] == [0, 1, 2, 4, 8, 10, 10]
    clock.now += 60
    assert waited(nurse, clock) == 0


def test_one_that_was_asked_to_end_has_not_crashed(shared: Shared, clock: Clock):
    nurse = supervisor._Nurse(shared)

    for exit_code in (0, -signal.SIGTERM):
        assert waited(nurse, clock, exit_code) == 0
    assert nurse.crashes == 0


def test_of_one_that_ended_only_what_it_has_counted_stays(shared: Shared, clock: Clock):
    for name in (
        "gauge_livesum_7.db",
        "gauge_livemax_7.db",
        "counter_7.db",
        "histogram_7.db",
        "gauge_livesum_77.db",
    ):
        (shared.counts / name).touch()

    supervisor._Nurse(shared).ended(process_pid=7, exit_code=1)

    kept = {path.name for path in shared.counts.iterdir()}
    assert kept == {"counter_7.db", "histogram_7.db", "gauge_livesum_77.db"}
