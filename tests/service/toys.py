"""Plugins that need no model, and say what they should have made."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from brigantine import Arrays, Done, Media, Params, Plugin
from brigantine.engine import Engine
from brigantine.errors import BadRequest
from brigantine.job import Job
from brigantine.lane import ThreadLane
from brigantine.scheduler import Scheduler
from brigantine.seeds import derive_seed
from brigantine.station import Station
from pydantic import Field

T = TypeVar("T")
POISON, REFUSED, QUITS, UNPREPARED, UNRENDERED = 1013, 1014, 1015, 1016, 1017


class ToyParams(Params):
    value: int = Field(default=0, description="What is doubled.")


class Toy(Plugin[ToyParams]):
    """y = 2 (value + noise of the row's own). Remembers its batches, and waits while its gate is closed."""

    name = "toy"
    content = "text"
    types = ("text/plain",)
    params = ToyParams

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []
        self.left: list[Any] = []

    def prepare(self, params: ToyParams, rng: np.random.Generator) -> Arrays:
        if params.value == UNPREPARED:
            raise ZeroDivisionError("by nought")
        return {"x": np.asarray(params.value + rng.random())}

    def generate(self, batch: Arrays) -> Arrays:
        values = [int(x) for x in batch["x"]]
        self.batches.append(values)
        self.entered.set()
        assert self.gate.wait(10)
        if POISON in values:
            raise ValueError("thirteen")
        if REFUSED in values:
            raise BadRequest("no such chord")
        if QUITS in values:
            raise SystemExit
        return {"y": 2 * batch["x"]}

    def render(self, row: Arrays, params: ToyParams, media_type: str) -> Media:
        if params.value == UNRENDERED:
            raise ZeroDivisionError("by nought")
        return Media(media_type, repr(float(row["y"])).encode())

    def leave(self, state: Any) -> None:
        self.left.append(state)


class Spell(NamedTuple):
    """A row that takes as many steps as its value says, and sums up which ones it had."""

    value: int
    steps: int = 0
    total: int = 0


class Speller(Toy):
    """Made in steps: 1 + 2 + ... + value. With `paced` each step waits for `go_on`."""

    name = "speller"
    takes_steps = True

    def __init__(self) -> None:
        super().__init__()
        self.stepped = threading.Event()
        self.go_on = threading.Semaphore(0)
        self.paced = False
        self.poison = 0

    def step(self, states: Sequence[Arrays | Spell]) -> list[Spell | Done]:
        if self.paced:
            self.stepped.set()
            assert self.go_on.acquire(timeout=10)
        spells = [s if isinstance(s, Spell) else Spell(int(s["x"])) for s in states]
        self.batches.append([spell.value for spell in spells])
        if any(spell.value == self.poison and spell.steps == 2 for spell in spells):
            raise ValueError("stuck")
        return [self._next(spell) for spell in spells]

    def _next(self, spell: Spell) -> Spell | Done:
        steps = spell.steps + 1
        after = Spell(spell.value, steps, spell.total + steps)
        return Done({"y": np.asarray(after.total)}) if steps >= spell.value else after


def doubled(job: Job) -> list[float]:
    """What Toy should have made of a job."""
    noise = [
        np.random.Generator(np.random.Philox(derive_seed(job.seed, index))).random()
        for index in range(job.rows)
    ]
    return [2 * (job.body["value"] + one) for one in noise]


def made(job: Job) -> list[float]:
    """What a job got."""
    return [float(media.body) for media in job.media]


def plugin_of(engine: Engine, model: str = "tiny") -> Any:
    """The plugin that serves a model in this process."""
    return engine.registry.models[model].loaded


def wanted(value: int, rows: int = 1, seed: int = 0, size: int = 0) -> Job:
    return Job({"value": value}, None, seed, "text/plain", rows, size)


def scheduler(plugin: Toy, threads: int = 1, **options: Any) -> Scheduler:
    """A scheduler with lanes in threads."""
    options = {"max_batch": 8, "queue_rows": 1000, "steps": plugin.takes_steps} | options
    max_batch = cast("int", options["max_batch"])
    lanes = [ThreadLane(Station(cast("Plugin[Any]", plugin), 1000), max_batch) for _ in range(threads)]
    return Scheduler(lanes, **options)  # type: ignore[arg-type]


async def until(true: Callable[[], object], patience_s: float = 10) -> None:
    """Let the loop run until something is true."""
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.001)


def on_a_loop(scenario: Callable[[], Coroutine[Any, Any, T]]) -> Callable[[], T]:
    """A test that is a coroutine."""

    def run() -> T:
        return asyncio.run(asyncio.wait_for(scenario(), 60))

    run.__name__ = scenario.__name__
    return run
