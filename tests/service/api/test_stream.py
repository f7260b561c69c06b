"""A generation is shown while it is made, and nothing of it outlives whoever asked."""

import asyncio
import gc
import itertools
import logging
import re
import tracemalloc
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from brigantine.api import ACCESS, stream
from brigantine.api.http import Watch
from brigantine.engine import Engine
from brigantine.settings import Settings
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from tests.service.api.wire import Wire, chunks, events, pieces
from tests.service.toys import plugin_of, until

URL = "/v1/completions"
LONG = {"prompt": "x", "stream": True, "max_tokens": 400, "pace_s": 0.005, "seed": 7}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def held(engine: Engine) -> int:
    return engine.served("prose").scheduler.held


def pieces_of(wire: Wire) -> list[str]:
    """The text of each piece that has any."""
    return [piece["text"] for piece in pieces(chunks(wire.text)) if piece["text"]]


def counted(engine: Engine, status: int) -> float:
    text = engine.metrics.exposition()[0].decode()
    found = re.search(rf'requests_total{{content="text",model="prose",status="{status}"}} (\S+)', text)
    return float(found[1]) if found else 0


def test_parts_come_while_others_are_made(prose: Engine):
    async def scenario() -> None:
        wire = Wire(prose, URL, LONG)
        await until(lambda: len(wire.bodies) > 3)
        assert held(prose) == 1
        assert not wire.complete
        wire.hang_up()
        await wire.task

    run(scenario())


def test_the_headers_say_that_nobody_may_keep_it(texts: TestClient):
    answer = texts.post(URL, json={**LONG, "max_tokens": 3}, headers={"x-request-id": "mine"})

    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": "refuse"}, 422, "invalid_params"),
        ({"max_tokens": 0}, 422, "invalid_params"),
        ({"model": "gpt-7"}, 404, "model_not_found"),
    ],
)
def test_what_goes_wrong_before_the_first_part_has_its_own_status(
    texts: TestClient, body: dict[str, object], status: int, code: str
):
    answer = texts.post(URL, json={"stream": True, **body})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_full_queue_is_429_with_retry_after_for_a_stream_too(prose: Engine):
    async def scenario() -> None:
        scheduler = prose.served("prose").scheduler
        scheduler._queue_rows = 1
        first = Wire(prose, URL, LONG)
        await until(lambda: first.bodies)
        second = Wire(prose, URL, LONG)
        await second.task
        assert (second.status, second.headers["retry-after"]) == (429, "1")
        first.hang_up()
        await first.task

    run(scenario())


def test_what_goes_wrong_later_is_the_last_event(texts: TestClient, caplog: pytest.LogCaptureFixture):
    answer = texts.post(
        URL, json={"prompt": "boom", "seed": 2, "stream": True}, headers={"x-request-id": "mine"}
    )

    *shown, (_, last) = events(answer.text)
    assert answer.status_code == 200
    assert shown
    assert last["error"] == {
        "message": "step() raised ValueError: the ribbon is torn",
        "type": "server_error",
        "param": None,
        "code": "generation_failed",
    }
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "POST /v1/completions mine"


def test_what_was_said_before_something_cannot_be_is_sent(
    texts: TestClient, prose: Engine, monkeypatch: pytest.MonkeyPatch
):
    plugin, count = plugin_of(prose, "prose"), itertools.count(1)
    right = plugin._logprobs
    monkeypatch.setattr(
        plugin, "_logprobs", lambda *args: right(*args) if next(count) < 20 else {"logprobs": "ha"}
    )

    answer = texts.post(URL, json={"logprobs": 1, "stream": True, "max_tokens": 100, "seed": 7})

    *said, (_, fault) = events(answer.text)
    assert fault["error"]["code"] == "generation_failed"
    tokens = [token for _, chunk in said for token in chunk["choices"][0]["logprobs"]["tokens"]]
    monkeypatch.undo()
    whole = texts.post(URL, json={"logprobs": 1, "max_tokens": 100, "seed": 7}).json()
    assert 10 < len(tokens) < 100
    assert tokens == whole["choices"][0]["logprobs"]["tokens"][: len(tokens)]


def test_a_deadline_that_passes_is_the_last_event(texts: TestClient):
    answer = texts.post(URL, json={**LONG, "pace_s": 0.02}, headers={"x-request-timeout-ms": "200"})

    assert answer.status_code == 200
    assert events(answer.text)[-1][1]["error"]["code"] == "deadline_exceeded"


def test_one_of_several_that_fails_ends_the_others(prose: Engine):
    async def scenario() -> None:
        steps = plugin_of(prose, "prose").steps
        for streamed in (True, False):
            wire = Wire(prose, URL, {**LONG, "prompt": ["x", "boom", "y"], "stream": streamed})
            await wire.task
            assert held(prose) == 0
            assert wire.status == (200 if streamed else 500)
            assert "the ribbon is torn" in wire.text
        assert plugin_of(prose, "prose").steps < steps + 100

    run(scenario())


def test_logprobs_that_no_route_can_read_are_the_plugins_fault(
    texts: TestClient, prose: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plugin_of(prose, "prose"), "_logprobs", lambda *_: {"logprobs": [{"word": "ha"}]})

    for streamed in (True, False):
        answer = texts.post(URL, json={"logprobs": 1, "stream": streamed})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "generation_failed")


def test_a_hang_up_takes_it_back_at_once_and_leaves_nothing(prose: Engine, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, ACCESS)

    async def scenario() -> None:
        tasks = asyncio.all_tasks()
        wire = Wire(prose, URL, {**LONG, "n": 3, "prompt": ["x", "y"], "pace_s": 0.02})
        await until(lambda: wire.bodies)
        steps = plugin_of(prose, "prose").steps
        wire.hang_up()
        await wire.task

        assert held(prose) == 0
        await until(lambda: len(plugin_of(prose, "prose").left) == 6)
        assert plugin_of(prose, "prose").steps <= steps + 2
        assert asyncio.all_tasks() == tasks
        assert not wire.complete
        assert counted(prose, 499) == 2
        assert wire.host.access is not None
        wire.host.access.flush()

    run(scenario())
    [record] = [record for record in caplog.records if record.name == ACCESS]
    assert " POST /v1/completions 499 " in record.getMessage()


def test_a_hang_up_before_the_first_part_takes_it_back_too(prose: Engine):
    async def scenario() -> None:
        wire = Wire(prose, URL, {**LONG, "pace_s": 0.3})
        await until(lambda: held(prose) == 1)
        wire.hang_up()
        await wire.task
        assert (held(prose), wire.bodies, wire.aborted) == (0, [], False)

    run(scenario())


def test_who_does_not_read_has_hung_up(prose: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "_STALLED_S", 0.1)

    async def scenario() -> None:
        tasks = asyncio.all_tasks()
        steps = plugin_of(prose, "prose").steps
        wire = Wire(prose, URL, {**LONG, "max_tokens": 500, "pace_s": 0.01})
        await until(lambda: wire.bodies)
        wire.reads.clear()
        await wire.task

        assert held(prose) == 0
        assert plugin_of(prose, "prose").steps < steps + 100
        assert wire.aborted
        assert asyncio.all_tasks() == tasks

    run(scenario())


def test_who_reads_slowly_has_not_hung_up(prose: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "_STALLED_S", 0.2)
    monkeypatch.setattr(stream, "_SLICE", 100)
    prose.settings = prose.settings.model_copy(update={"stream_interval_s": 1.0})  # all but the first at once

    async def scenario() -> None:
        wire = Wire(prose, URL, {**LONG, "max_tokens": 400, "pace_s": 0.0})
        wire.bytes_per_s = 4000
        await wire.task

        assert len(wire.text) > 0.3 * wire.bytes_per_s
        assert wire.complete and not wire.aborted
        assert chunks(wire.text)

    run(scenario())


def test_what_piled_up_goes_out_in_one_piece(prose: Engine):
    async def scenario() -> None:
        wire = Wire(prose, URL, {**LONG, "max_tokens": 100})
        await until(lambda: wire.bodies)
        wire.reads.clear()
        plugin = plugin_of(prose, "prose")
        seen = plugin.steps
        await until(lambda: plugin.steps > seen + 50)
        wire.reads.set()
        await wire.task

        assert len(wire.bodies) < 60
        assert max(map(len, pieces_of(wire))) > 20 * min(map(len, pieces_of(wire)))
        whole = Wire(prose, URL, {**LONG, "max_tokens": 100, "stream": False})
        await whole.task
        said = "".join(piece["text"] for piece in pieces(chunks(wire.text)))
        assert f'"text":"{said}"' in whole.text

    run(scenario())


def test_what_waits_for_who_does_not_read_is_no_larger_than_what_is_sent(prose: Engine):
    async def scenario() -> None:
        wire = Wire(prose, URL, {**LONG, "logprobs": 5, "pace_s": 0.001})
        await until(lambda: wire.bodies)
        wire.reads.clear()
        tracemalloc.start()
        await until(lambda: held(prose) == 0)
        gc.collect()
        waiting, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        wire.reads.set()
        await wire.task

        assert 0.8 * len(wire.text) < waiting < 1.2 * len(wire.text)

    run(scenario())


def test_what_comes_in_quick_succession_goes_out_together_but_the_first_at_once(prose: Engine):
    async def scenario() -> None:
        wire = Wire(prose, URL, {**LONG, "max_tokens": 100, "pace_s": 0.001})
        await wire.task

        told = pieces_of(wire)
        assert 3 < len(told) < 60
        assert len(told[0]) < 5 < max(map(len, told))
        whole = Wire(prose, URL, {**LONG, "max_tokens": 100, "stream": False})
        await whole.task
        assert f'"text":"{"".join(told)}"' in whole.text

    run(scenario())


def test_two_hundred_who_hang_up_leave_memory_flat(prose: Engine):
    async def hang_up(seed: int) -> None:
        wire = Wire(prose, URL, {**LONG, "seed": seed, "n": 2, "pace_s": 0.001})
        await until(lambda: len(wire.bodies) > seed % 3)
        wire.hang_up()
        await wire.task

    async def many(first: int) -> int:
        for begin in range(first, first + 100, 20):
            await asyncio.gather(*map(hang_up, range(begin, begin + 20)))
        await until(lambda: len(plugin.left) == 40 * 5)
        plugin.left.clear()
        await asyncio.sleep(0.3)  # longer than anything is held
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    plugin = plugin_of(prose, "prose")

    async def scenario() -> None:
        tasks = asyncio.all_tasks()
        tracemalloc.start()
        await many(0)  # what is looked up once
        before = await many(100)
        after = await many(200)
        tracemalloc.stop()

        assert after - before < 50_000
        assert held(prose) == 0
        assert asyncio.all_tasks() == tasks
        work = prose.served("prose").scheduler._works[0]
        assert not (work.jobs or work.gone or work.rows)

    run(scenario())


def test_the_parts_of_a_model_in_a_process_of_its_own_come_too(prose: Engine, tmp_path: Path):
    each = {"stream_interval_s": 0.0}  # every part by itself
    prose.settings = prose.settings.model_copy(update=each)
    settings = Settings(plugins_dir=tmp_path / "plugins", isolate=("typist",))  # type: ignore[arg-type]
    engine = Engine.start(settings.model_copy(update=each), only="prose")

    async def scenario() -> None:
        for body in ({**LONG, "max_tokens": 30, "pace_s": 0.02}, {**LONG, "prompt": "boom", "pace_s": 0.02}):
            theirs, ours = Wire(engine, URL, body), Wire(prose, URL, body)
            await asyncio.gather(theirs.task, ours.task)
            told = [(name, data and data.get("choices", data)) for name, data in events(theirs.text)]
            assert told == [(name, data and data.get("choices", data)) for name, data in events(ours.text)]
            assert len(told) >= 3
        gone = Wire(engine, URL, LONG)
        await until(lambda: gone.bodies)
        gone.hang_up()
        await gone.task
        assert held(engine) == 0

    try:
        run(scenario())
    finally:
        engine.close()


def test_a_watch_that_has_stopped_does_not_wait_for_the_garbage_collector():
    async def scenario() -> None:
        nothing = asyncio.Event()

        async def receive() -> Message:
            await nothing.wait()
            raise AssertionError

        watch = Watch(Request({"type": "http"}, receive), 0.0)
        await asyncio.sleep(0.01)
        watch.stop()
        left = ref(watch)
        del watch
        await asyncio.sleep(0.01)
        assert left() is None

    gc.disable()
    try:
        run(scenario())
    finally:
        gc.enable()
