"""When a worker is started in the place of one that has ended, and when all of them end."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from brigantine import supervisor
from brigantine.nest import Nest
from brigantine.settings import Settings
from brigantine.shared import Shared
from brigantine.supervisor import supervised


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
    nurse.opened = True

    assert [waited(nurse, clock) for _ in range(7)] == [0, 1, 2, 4, 8, 10, 10]
    clock.now += 60
    assert waited(nurse, clock) == 0


def test_before_one_has_answered_all_crashes_count_however_long_each_took(shared: Shared, clock: Clock):
    nurse = supervisor._Nurse(shared)

    for exit_code in (0, -signal.SIGTERM, 1):
        waited(nurse, clock, exit_code)
        clock.now += 70
    assert nurse.crashes == 3


def test_one_that_was_asked_to_end_has_not_crashed(shared: Shared, clock: Clock):
    nurse = supervisor._Nurse(shared)

    for exit_code in (0, -signal.SIGTERM, -signal.SIGKILL):
        assert nurse.asks(pid=7)
        assert waited(nurse, clock, exit_code) == 0
    nurse.forget(set())
    nurse.opened = True
    assert waited(nurse, clock, -signal.SIGTERM) == 0, "asked by somebody else"
    assert nurse.crashes == 0
    assert waited(nurse, clock, 0) == 0
    assert nurse.crashes == 1, "nobody asked, then"


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


def test_of_one_of_which_circus_does_not_tell_that_it_ended_neither(shared: Shared):
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, os.getpid(), 7):
        (shared.counts / f"gauge_livesum_{pid}.db").touch()
    (shared.counts / f"counter_{gone.pid}.db").touch()

    supervisor._Nurse(shared).forget({7})

    kept = {path.name for path in shared.counts.iterdir()}
    assert kept == {f"gauge_livesum_{os.getpid()}.db", "gauge_livesum_7.db", f"counter_{gone.pid}.db"}


class Loop:
    """Calls later only when told to."""

    def __init__(self) -> None:
        self.later: list[Callable[[], Any]] = []

    def call_later(self, _after_s: float, what: Callable[[], Any]) -> None:
        self.later.append(what)


class Arbiter:
    """Circus' supervisor, where nothing is real."""

    _stopping = False
    _exclusive_running_command: str | None = None

    def __init__(self, watchers: list[Any], **given: Any) -> None:
        self.given = given
        self.loop = Loop()
        self.sockets: dict[str, Any] = {}
        self.done: list[str] = []
        watchers.append(Watcher())  # as for `bentoml serve --reload`

    def reap_processes(self) -> None:
        pass

    def manage_watchers(self) -> None:
        self.done.append("manage")

    def stop(self) -> str:
        assert self._exclusive_running_command is None, "circus refuses"
        self.done.append("stop")
        return "stopped"


class Process:
    def __init__(self) -> None:
        self.signals: list[int] = []

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


class Watcher:
    """Circus' watcher, where nothing is real."""

    _process_class = property(lambda _: SimpleNamespace)
    respawn = False

    def __init__(self) -> None:
        self.hooks: dict[str, Any] = {}
        self.processes = {7: Process()}


def supervising(shared: Shared, watchers: list[Any]) -> Any:
    supervisor = supervised(Arbiter, Settings(), shared, cast(Nest, None))
    return supervisor(watchers, endpoint="tcp://127.0.0.1:1", pubsub_endpoint="tcp://127.0.0.1:2")


def test_a_stop_waits_for_what_circus_is_about_and_is_not_lost(shared: Shared):
    worker = Watcher()
    supervision = supervising(shared, [worker])
    supervision._exclusive_running_command = "arbiter_start_watchers"

    assert supervision.stop() is None
    assert supervision.done == [] and shared.stopping
    assert worker.processes[7].signals == [signal.SIGTERM]
    supervision.loop.later.pop()()
    supervision._exclusive_running_command = None
    supervision.manage_watchers()
    assert supervision.done == [], "no worker is started any more"
    supervision.loop.later.pop()()
    assert supervision.done == ["stop"]
    assert worker.processes[7].signals == [signal.SIGTERM], "once"


def test_what_circus_watches_besides_is_left_as_it_is(shared: Shared):
    watchers = [Watcher()]
    supervising(shared, watchers)

    assert [watcher.respawn for watcher in watchers] == [True, False]


def test_circus_takes_orders_where_only_this_user_can_give_them(shared: Shared):
    given = supervising(shared, []).given
    assert given["endpoint"] == f"ipc://{shared.folder}/control"
    assert given["pubsub_endpoint"] == f"ipc://{shared.folder}/events"

    deep = Shared(shared.folder / ("deep" * 25))
    assert supervising(deep, []).given["endpoint"] == "tcp://127.0.0.1:1", "as BentoML has it"


def test_a_service_without_its_folder_can_be_stopped_and_ends_when_it_loses_a_worker(shared: Shared):
    stopped, failed = supervising(shared, []), supervising(shared, [])
    shutil.rmtree(shared.folder)

    assert stopped.stop() == "stopped"
    failed.manage_watchers()
    assert failed.done == ["manage"]
    failed._nurse.ended(process_pid=7, exit_code=1)
    failed.manage_watchers()
    assert failed.done == ["manage", "stop"] and failed._exception.code == 1


def test_three_that_end_are_a_start_that_has_failed(shared: Shared):
    supervision = supervising(shared, [])
    for _ in range(3):
        supervision._nurse.ended(process_pid=7, exit_code=0)
    supervision.manage_watchers()

    assert supervision.done == ["stop"] and supervision._exception.code == 1
