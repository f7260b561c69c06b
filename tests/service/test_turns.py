"""Turns: uses run beside each other, a recording runs alone."""

import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest
from brigantine.turns import Turns

WAIT_S = 10


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_uses_run_beside_each_other():
    turns, together = Turns(), threading.Barrier(3, timeout=WAIT_S)

    def use() -> None:
        with turns.use():
            together.wait()

    threads = [in_thread(use) for _ in range(2)]
    together.wait()  # only passed when both are within
    for thread in threads:
        thread.join(WAIT_S)


def test_a_recording_waits_for_uses_and_keeps_others_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("brigantine.turns._PATIENCE_S", 0)
    turns, order = Turns(), list[str]()
    may_end, began, may_stop = threading.Event(), threading.Event(), threading.Event()

    def use() -> None:
        with turns.use():
            began.set()
            may_end.wait(WAIT_S)
            order.append("used")

    def record() -> None:
        with turns.record():
            order.append("recording")
            may_stop.wait(WAIT_S)
            order.append("recorded")

    def late() -> None:
        with turns.use():
            order.append("late")

    threads = [in_thread(use)]
    assert began.wait(WAIT_S)
    threads.append(in_thread(record))
    _until(lambda: turns._is_recording)
    threads.append(in_thread(late))
    may_end.set()
    _until(lambda: "recording" in order)
    assert "late" not in order
    may_stop.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["used", "recording", "recorded", "late"]


def test_a_use_that_does_not_end_keeps_nobody_out_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("brigantine.turns._PATIENCE_S", 0.05)
    monkeypatch.setattr("brigantine.turns._DRAIN_S", 0.05)
    turns, refused = Turns(), list[BaseException]()

    def record() -> None:
        try:
            with turns.record():
                raise AssertionError("it records beside a use")
        except BaseException as error:
            refused.append(error)

    with turns.use():
        thread = in_thread(record)
        thread.join(WAIT_S)
        with turns.use():  # others are let in again
            pass
    assert [type(error) for error in refused] == [TimeoutError]
    with turns.record():
        pass


def test_two_do_not_record_at_once_and_an_error_ends_a_turn():
    turns = Turns()
    inside, most = 0, 0

    def record() -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.record():
                inside += 1
                most = max(most, inside)
                time.sleep(1e-4)
                inside -= 1

    threads = [in_thread(record) for _ in range(3)]
    for thread in threads:
        thread.join(WAIT_S)
    assert most == 1
    for turn in (turns.use, turns.record):
        with pytest.raises(KeyError), turn():
            raise KeyError
    with turns.record():
        pass


class Thing:
    """What lies on a device."""


@contextmanager
def beside(turn: Callable[[], AbstractContextManager[None]]) -> Generator[None]:
    """While another thread has this turn."""
    has_begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with turn():
            has_begun.set()
            may_end.wait(WAIT_S)

    thread = in_thread(work)
    assert has_begun.wait(WAIT_S)
    yield
    may_end.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_what_is_discarded_goes_at_once_where_nobody_records():
    turns, things = Turns(), [Thing()]
    turns.discard(things)
    assert not things
    things.append(Thing())
    with beside(turns.use):
        turns.discard(things)
        assert not things


def test_what_is_discarded_beside_a_recording_goes_when_that_is_over():
    turns, things = Turns(), [Thing()]
    with beside(turns.record):
        turns.discard(things)
        assert things
    assert not things


def test_who_records_may_discard_and_so_may_who_holds_the_lock():
    turns, things = Turns(), [Thing()]
    with turns.record():
        turns.discard(things)
        assert things
    assert not things
    things.append(Thing())
    with turns._lock:  # the garbage collector came in there
        turns.discard(things)
    assert things
    with turns.use():
        pass
    assert not things


def test_what_is_discarded_while_a_recording_is_waited_for_goes_with_the_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("brigantine.turns._PATIENCE_S", 0)
    turns, things, left = Turns(), [Thing()], list[int]()

    def record() -> None:
        with turns.record():
            left.append(len(things))

    with turns.use():
        thread = in_thread(record)
        _until(lambda: turns._is_recording)
        turns.discard(things)
    thread.join(WAIT_S)
    assert left == [0]


def test_what_goes_wrong_in_a_turn_keeps_nothing_of_it():
    turns = Turns()
    seen = list[weakref.ref[Thing]]()

    def fail() -> None:
        thing = Thing()
        seen.append(weakref.ref(thing))
        try:
            raise KeyError
        except KeyError as error:
            raise ValueError from error

    for turn in (turns.use, turns.record):
        with pytest.raises(ValueError) as caught, turn():  # noqa: PT011 - which one is no matter
            fail()
        assert caught.value.__traceback__
        assert [one() for one in seen] == [None] * len(seen)


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(1e-3)
