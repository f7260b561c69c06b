"""Rules about steps, and about the threads that take them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..plugin import Done, Part, Plugin
from .finding import Breach, Broken, place_of, told
from .fingerprint import fingerprint
from .journey import MOST_STEPS, Finished, Wish, finish, make, prepared, rendered, stepped
from .rule import Rule
from .subject import Subject

__all__ = ["RULES"]

_RACE = 0.05
"""The part of the patience for which two threads race each other."""
_SWITCH_S = 1e-5
"""How often they take turns then; Python's own 5 ms would hide most races."""


def _steps_end(subject: Subject) -> Iterator[Breach]:
    """Every row is done within 10,000 steps."""
    for trial in subject.trials:
        for outcome in trial.outcomes.values():
            if isinstance(outcome, Broken) and outcome.finding.rule == "steps-end":
                yield Breach(*outcome.finding[1:])
                return


def _steps_pure(subject: Subject) -> Iterator[Breach]:
    """A step changes none of the states that it is given, and rows become the same when each is taken twice."""
    plugin, where = subject.plugin(), f"{subject.said}.step()"
    wishes = subject.wishes(5)
    states: dict[int, Any] = dict(enumerate(prepared(plugin, wishes)))
    done: dict[int, Finished] = {}
    for step in subject.patiently(range(MOST_STEPS)):
        before = fingerprint(states)
        stepped(plugin, list(states.values()))
        if fingerprint(states) != before:
            remedy = "make new states: after an exception the step is taken again, with fewer rows"
            yield Breach(where, "states left as they were", "a changed one", remedy)
            return
        after = dict(zip(states, stepped(plugin, list(states.values())), strict=True))
        done |= {index: Finished(one.row, step) for index, one in after.items() if isinstance(one, Done)}
        states = {index: one for index, one in after.items() if not isinstance(one, Done)}
        if not states:
            break
    # What is made at once shows by its seeds whether it is the same when it is made again.
    at_once = type(plugin).step is Plugin.step  # pyright: ignore[reportUnknownMemberType]
    expected = [] if at_once else make(plugin, wishes)
    for index, one in done.items() if expected else ():
        made = rendered(plugin, one, wishes[index].request, plugin.types[0])
        if made.body != expected[index].body:
            remedy = "keep all that a row needs in its state, its random numbers too"
            got = "something else from rows whose steps were taken twice"
            yield Breach(where, "the same bytes from the same states", got, remedy)
            return


def _parts(subject: Subject) -> Iterator[Breach]:
    """What is shown of a row before it is done is the beginning of what it becomes, in the type of its media."""
    plugin, where = subject.plugin(), f"{subject.said}.step()"
    wishes = subject.wishes(3)
    states: dict[int, Any] = dict(enumerate(prepared(plugin, wishes)))
    shown = [b""] * len(wishes)
    types: set[str] = set()
    for _ in subject.patiently(range(MOST_STEPS)):
        made = dict(zip(states, plugin.step(list(states.values())), strict=True))
        for index, one in made.items():
            if isinstance(one, Part):
                shown[index] += one.media.body
                types.add(one.media.type)
        states = {index: Part.state_of(one) for index, one in made.items() if not isinstance(one, Done)}
        if not states:
            break
    for media, beginning in zip(make(plugin, wishes), shown, strict=True):
        if beginning and not media.body.startswith(beginning):
            got = f"parts that end in {beginning[-40:]!r}, and a whole that differs before that"
            yield Breach(
                where, "parts that are the beginning of the whole", got, "hold back what may yet change"
            )
            return
        if beginning and types != {media.type}:
            got = f"parts of the type {', '.join(sorted(types))}"
            yield Breach(where, f"parts of the type {media.type}", got, "give parts and the whole one type")
            return


def _cancellation(subject: Subject) -> Iterator[Breach]:
    """A row that leaves between two steps changes no other one, and leave() does not raise."""
    plugin, (request, steps) = subject.plugin(), subject.longest()
    wishes = [Wish(request, seed) for seed in (11, 12, 13)]
    stay = wishes[::2]
    expected = [make(plugin, [wish])[0].body for wish in stay]
    if [media.body for media in make(plugin, wishes)[::2]] != expected:
        return  # their company sways them even when it stays, which the rule `batch-of-many` says
    for after in sorted({0, 1, steps // 2, steps - 1} & set(range(steps))):
        states: Sequence[Any] = prepared(plugin, wishes)
        for _ in range(after):
            states = stepped(plugin, states)
        if any(isinstance(state, Done) for state in states):
            continue
        try:
            plugin.leave(states[1])
        except (Exception, SystemExit) as error:
            got = f"{told(error)}{place_of(error, subject.home)}"
            yield Breach(
                f"{subject.said}.leave()", "a row that leaves quietly", got, "give back what is there, once"
            )
            return
        done = finish(plugin, states[::2])
        made = [rendered(plugin, one, request, plugin.types[0]).body for one in done]
        if made != expected:
            remedy = "let leave() give back what this one row holds, and nothing that others use"
            got = f"others, when their neighbour left after {after} of {steps} steps"
            yield Breach(f"{subject.said}.leave()", "the same bytes for the rows that stay", got, remedy)
            return


def _threads(subject: Subject) -> Iterator[Breach]:
    """Two threads at once, each with rows of its own, make the same bytes as one."""
    plugin = subject.plugin()
    shares = subject.wishes(2, first=20), subject.wishes(2, first=30)
    expected = [[media.body for media in make(plugin, share)] for share in shares]
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        got = _race(plugin, shares, expected, _RACE * subject.patience_s, subject.home)
    finally:
        sys.setswitchinterval(before)
    if got:
        remedy = "keep what belongs to a row in the row, not in self; guard what must be shared with a lock"
        yield Breach(subject.said, "the same bytes from two threads as from one", got[0], remedy)


def _race(
    plugin: Plugin[Any],
    shares: Sequence[Sequence[Wish]],
    expected: Sequence[list[bytes]],
    within_s: float,
    home: Path | None,
) -> list[str]:
    """What went wrong first in each thread, if anything did."""
    start = threading.Barrier(len(shares))
    faults: list[str] = []

    def work(share: Sequence[Wish], bodies: list[bytes]) -> None:
        start.wait()
        end = time.perf_counter() + within_s
        while not faults:
            try:
                made = [media.body for media in make(plugin, share)]
            except (Exception, SystemExit) as error:
                faults.append(f"{told(error)}{place_of(error, home)}")
                return
            if made != bodies:
                faults.append("others")
            if time.perf_counter() > end:
                return

    threads = [
        threading.Thread(target=work, args=pair, daemon=True) for pair in zip(shares, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


RULES = (
    Rule("steps-end", "load", _steps_end),
    Rule("steps-pure", "batch", _steps_pure),
    Rule("parts", "settled", _parts),
    Rule("cancellation", "settled", _cancellation),
    Rule("threads", "settled", _threads),
)
