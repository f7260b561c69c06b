"""Requests for one generation over a real connection: answered without the app, and otherwise as it would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from brigantine import Media
from brigantine.api import Host
from brigantine.errors import BadParams, BadRequest, FieldError

from tests.service.api.site import (
    GENERATE,
    LARGE,
    Answer,
    Serve,
    Site,
    flying,
    gate,
    held,
    on_a_site,
    request,
    through_the_app,
)
from tests.service.toys import plugin_of, until

SAME = {"id", "created", "stages_ms"}
"""What differs between two answers to one request."""


class Odd(BadRequest):
    """A plugin's own, with a status that HTTP does not have."""

    status = 1000


@pytest.mark.parametrize(
    "sent",
    [
        request({"seed": 7, "n": 3}),
        request({"seed": 7}, headers="accept: image/png\r\nx-request-id: mine\r\n"),
        request({"seed": 7, "prompt": "x", "model": "tiny"}, "/v1/images/generations"),
        request({"seed": "x"}),
        request({"sede": 7}),
        request({"n": 3}, headers="accept: image/png\r\n"),
        request(raw=b"{"),
        request(raw=b"[]"),
        request({"model": "tiny", "output_format": "wav"}, "/v1/images/generations"),
    ],
    ids=lambda sent: sent[5:].decode().replace("\r\n", " "),
)
def test_the_answer_is_the_apps(serve: Serve, sent: bytes):
    async def asked(served: Site) -> list[Answer]:
        client = await served.connect()
        answers: list[Answer] = []
        for _ in range(2):  # the second is not parsed
            client.writer.write(sent)
            answers.append(await client.answer())
        assert not served.asked
        answers.append(await through_the_app(client, sent))
        assert len(served.asked) == 1
        return answers

    *direct, indirect = serve(asked)
    for answer in direct:
        assert answer.status == indirect.status
        assert answer.headers.keys() == indirect.headers.keys()
        assert answer.headers["content-type"] == indirect.headers["content-type"]
        if answer.headers["content-type"] == "application/json":
            assert {k: v for k, v in answer.said.items() if k not in SAME} == {
                k: v for k, v in indirect.said.items() if k not in SAME
            }
        else:
            assert answer.body == indirect.body
            assert answer.headers["x-request-id"] == indirect.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(headers="accept: text/event-stream\r\n"), 200),
        (request({"prompt": "x"}, "/v1/completions"), 404),
        (b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n", 200),
        (request(path="/nowhere"), 404),
        (request(path="/v1/models/nine/generate"), 404),
        (request(path="/v1/smells/generations"), 404),
        (request(headers="accept: audio/wav\r\n"), 406),
        (request(headers="x-request-timeout-ms: soon\r\n"), 400),
        (request(raw=b" " * 2_000_000), 413),
        (request(headers="expect: 100-continue\r\n"), 200),
    ],
    ids=[
        "stream",
        "completions",
        "get",
        "no path",
        "no model",
        "no content",
        "no such type",
        "no time",
        "too large",
        "expect",
    ],
)
def test_all_else_is_for_the_app(serve: Serve, sent: bytes, status: int):
    async def asked(served: Site) -> list[str]:
        client = await served.connect()
        client.writer.write(sent)
        line = await client.reader.readline()
        if b" 100 " in line:
            line = (await client.reader.readline()) and await client.reader.readline()
        assert int(line.split()[1]) == status
        return served.asked

    assert len(serve(asked)) == 1


@on_a_site
async def test_one_connection_has_its_answers_in_order(served: Site):
    client = await served.connect()
    alone = [(await client.ask({"seed": seed})).said["data"] for seed in range(5)]

    client.writer.write(b"".join(request({"seed": seed}) for seed in range(5)))
    assert [(await client.answer()).said["data"] for _ in range(5)] == alone


@on_a_site
async def test_many_connections_have_their_own_answers(served: Site):
    async def asks(seed: int) -> None:
        client = await served.connect()
        for turn in range(5):
            answer = await client.ask({"seed": 10 * seed + turn})
            assert (answer.status, answer.said["data"][0]["seed"]) == (200, 10 * seed + turn)

    await asyncio.gather(*map(asks, range(40)))
    assert not served.asked


@on_a_site
async def test_a_connection_is_closed_when_either_side_says_so(served: Site):
    for sent in 2 * (request(headers="connection: close\r\n"), request(version="1.0")):  # a known head, too
        client = await served.connect()
        client.writer.write(sent)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await asyncio.wait_for(client.reader.read(), 2) == b"", "it is closed at once"


@pytest.mark.parametrize("whose", ["uvicorn's", "ours"])
def test_what_was_begun_before_a_stop_is_answered_and_the_connection_closed(
    host: Host, serve: Serve, whose: str
):
    async def scenario(served: Site) -> None:
        client = await served.connect()
        with gate(host):
            client.writer.write(request())
            await until(lambda: held(host) == 1)
            served.server.should_exit, host.stopping = whose == "uvicorn's", whose == "ours"
            await asyncio.sleep(0.3)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await asyncio.wait_for(client.reader.read(), 2) == b"", "it is closed at once"

    serve(scenario)


@on_a_site
async def test_who_was_taken_just_before_a_stop_is_answered_and_who_says_nothing_is_not_waited_for(
    served: Site,
):
    asks, silent = await served.connect(), await served.connect()
    await until(lambda: len(served.server.server_state.connections) == 2)
    served.server.should_exit = True
    await until(lambda: not served.server.servers[0].is_serving())
    answer = await asks.ask()
    assert answer.status == 200
    for client in (asks, silent):
        assert await asyncio.wait_for(client.reader.read(), 2) == b"", "it is closed soon"


@on_a_site
async def test_while_it_stops_the_app_says_so(served: Site):
    client = await served.connect()
    served.entry._host.stopping = True  # type: ignore[misc]
    answer = await client.ask()
    assert (answer.status, answer.headers["connection"]) == (503, "close")


def test_a_late_answer_is_504(host: Host, serve: Serve):
    async def scenario(served: Site) -> None:
        client = await served.connect()
        with gate(host):
            answer = await client.ask(headers="x-request-timeout-ms: 50\r\n")
            assert (answer.status, answer.code) == (504, "deadline_exceeded")
        assert (await client.ask()).status == 200, "the connection is as good as before"
        assert not served.asked

    serve(scenario)


def test_what_a_plugin_raises_or_a_type_that_would_forge_a_header_is_500(
    host: Host, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def scenario(served: Site) -> None:
        client = await served.connect()
        plugin = plugin_of(host.engine)  # type: ignore[arg-type]
        monkeypatch.setattr(plugin, "render", lambda *args: Media("image/png\r\nx-forged: 1", b"x"))
        forged = await client.ask(headers="accept: image/png\r\n")
        assert (forged.status, forged.code) == (500, "generation_failed")
        assert "x-forged" not in forged.headers
        monkeypatch.setattr(plugin, "render", lambda *args: 1 / 0)
        raised = await client.ask(headers="x-request-id: mine\r\n")
        assert (raised.status, raised.code) == (500, "generation_failed")
        assert not served.asked

    serve(scenario)
    assert "mine" in caplog.text and "ZeroDivisionError" in caplog.text


@on_a_site
async def test_who_reads_nothing_is_left_to_the_app_which_waits(served: Site):
    client = await served.connect()
    transport: Any = client.writer.transport
    transport.pause_reading()
    counts = served.server.server_state
    while not served.asked:
        client.writer.write(request({"n": 64}))
        before = counts.total_requests
        await until(lambda: bool(served.asked) or counts.total_requests > before)  # noqa: B023
    transport.resume_reading()
    for _ in range(counts.total_requests + 1):
        assert len((await client.answer()).said["data"]) == 64


def test_words_and_statuses_that_no_answer_can_have_are_errors_too(
    host: Host, serve: Serve, monkeypatch: pytest.MonkeyPatch
):
    def raising(error: BaseException) -> Callable[..., Any]:
        def run(*_: Any) -> Any:
            raise error

        return run

    async def scenario(served: Site) -> None:
        client = await served.connect()
        plugin = plugin_of(host.engine)  # type: ignore[arg-type]
        monkeypatch.setattr(plugin, "render", raising(ValueError("cannot read \udcff")))
        for answer in (await client.ask(), await through_the_app(client, request())):
            assert (answer.status, answer.code) == (500, "generation_failed")
            assert "cannot read \\udcff" in answer.said["error"]["message"]
        monkeypatch.setattr(plugin, "render", raising(Odd("odd")))
        for answer in (await client.ask(), await through_the_app(client, request())):
            assert (answer.status, answer.code) == (500, "internal_error")
        served_model = host.engine.served("tiny")  # type: ignore[union-attr]
        fault = BadParams([FieldError("seed", "a number, not \udcff", "\udcff")])
        monkeypatch.setattr(served_model.request, "model_validate", raising(fault))
        for answer in (await client.ask(), await through_the_app(client, request())):
            assert (answer.status, answer.code) == (422, "invalid_params")
            assert answer.said["error"]["errors"][0]["got"] == "\\udcff"
        monkeypatch.setattr(served_model.request, "model_validate", raising(SystemExit(1)))
        answer = await client.ask()
        assert (answer.status, answer.code) == (500, "internal_error")
        assert flying(host) == 0

    serve(scenario)


def test_what_the_head_tells_is_said_before_the_body_has_come(serve: Serve):
    async def scenario(served: Site) -> None:
        for path, headers, status in (
            ("/v1/models/nine/generate", "", 404),
            (GENERATE, "accept: audio/wav\r\n", 406),
            ("/v1/smells/generations", "", 404),
        ):
            client = await served.connect()
            client.writer.write(request(path=path, headers=headers, raw=LARGE).partition(b"{")[0])
            assert (await asyncio.wait_for(client.answer(), 2)).status == status

    serve(scenario)
