"""Requests that begin like one before are not parsed again, and mean what they would mean."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brigantine.api import Host
from brigantine.api.direct import DirectProtocol
from brigantine.api.heads import Head, Heads

from tests.service.api.site import GENERATE, Client, Serve, Site, gate, held, on_a_site, request
from tests.service.toys import until


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the heads that were parsed."""
    paths: list[str] = []
    complete = DirectProtocol.on_headers_complete

    def noted(self: DirectProtocol) -> None:
        complete(self)
        paths.append(self.scope["path"])

    monkeypatch.setattr(DirectProtocol, "on_headers_complete", noted)
    return paths


def seeds(answer: Any) -> list[int]:
    assert answer.status == 200
    return [row["seed"] for row in answer.said["data"]]


def test_a_head_is_parsed_once_for_all_connections(serve: Serve, parsed: list[str]):
    async def scenario(served: Site) -> None:
        one, other = await served.connect(), await served.connect()
        for seed in (10, 11, 12):
            for client in (one, other):
                assert seeds(await client.ask({"seed": seed})) == [seed]
        assert len(parsed) == 1
        assert seeds(await one.ask({"seed": 100})) == [100], "its length is another one"
        assert len(parsed) == 2
        answer = await one.ask({"seed": 13}, headers="accept: image/png\r\n")
        assert answer.headers["content-type"] == "image/png"
        assert len(parsed) == 3
        assert (await one.ask({"sede": 14})).status == 422, "the head of the first, and a body of its own"
        assert (await one.ask(raw=b'{"seed": 10,')).status == 400
        assert len(parsed) == 3
        assert not served.asked

    serve(scenario)


@on_a_site
async def test_each_has_its_own_id_or_that_of_its_client(served: Site):
    client = await served.connect()
    drawn = [(await client.ask({"seed": 1})).headers["x-request-id"] for _ in range(3)]
    assert len(set(drawn)) == 3
    for name in ("mine", "yours", "mine"):
        answer = await client.ask({"seed": 1}, headers=f"x-request-id: {name}\r\n")
        assert answer.headers["x-request-id"] == name


@on_a_site
async def test_how_long_its_client_waits_is_part_of_it(served: Site):
    client = await served.connect()
    for _ in range(2):
        assert (await client.ask({"seed": 1}, headers="x-request-timeout-ms: 60000\r\n")).status == 200
        assert (await client.ask({"seed": 1}, headers="x-request-timeout-ms: soon\r\n")).status == 400


def test_a_body_that_looks_like_a_request_is_a_body(serve: Serve, parsed: list[str]):
    """Else who can have a service sent a body of theirs could ask in another's name."""

    async def scenario(served: Site) -> None:
        client = await served.connect()
        known = request({"seed": 1})
        assert (await client.ask({"seed": 1})).status == 200
        client.writer.write(request(raw=known)[: -len(known)])
        await until(lambda: len(parsed) == 2)
        client.writer.write(known)
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        client.writer.write(known[:30])
        await asyncio.sleep(0.05)
        client.writer.write(known[30:])
        assert seeds(await client.answer()) == [1]
        assert seeds(await client.ask({"seed": 2})) == [2]

    serve(scenario)


@on_a_site
async def test_what_follows_half_a_head_belongs_to_it(served: Site):
    client = await served.connect()
    known = request({"seed": 1})
    assert (await client.ask({"seed": 1})).status == 200
    client.writer.write(b"GET /livez HTTP/1.1\r\nx-said: ")
    await asyncio.sleep(0.05)
    client.writer.write(known)
    assert (await client.answer()).said == {"status": "alive"}
    assert seeds(await client.ask({"seed": 1})) == [1]


def test_what_comes_before_the_answer_waits_for_it(host: Host, serve: Serve):
    async def scenario(served: Site) -> None:
        client = await served.connect()
        await client.ask({"seed": 1})
        with gate(host):
            for seed in (2, 3):
                client.writer.write(request({"seed": seed}))
                await client.writer.drain()
                await asyncio.sleep(0.05)
            client.writer.write(request({"seed": 4}) + request({"seed": 5}))
            await asyncio.sleep(0.05)
            assert held(host) == 1
        for seed in (2, 3, 4, 5):
            assert seeds(await client.answer()) == [seed]
        assert seeds(await client.ask({"seed": 6})) == [6]

    serve(scenario)


def test_who_hangs_up_is_heard(host: Host, serve: Serve):
    async def scenario(served: Site) -> None:
        client = await served.connect()
        await client.ask({"seed": 1})
        with gate(host):
            client.writer.write(request({"seed": 2}))
            await until(lambda: held(host) == 1)
            client.writer.transport.abort()
            await asyncio.sleep(0.1)
            assert held(host) == 0

    serve(scenario)


def test_a_service_that_stops_answers_as_to_any_head(host: Host, serve: Serve):
    async def scenario(served: Site) -> None:
        client = await served.connect()
        await client.ask({"seed": 1})
        host.stopping = True
        answer = await client.ask({"seed": 1})
        assert (answer.status, answer.headers["connection"]) == (503, "close")

    serve(scenario)


def test_what_is_asked_of_the_app_goes_there_each_time(serve: Serve):
    async def scenario(served: Site) -> None:
        client = await served.connect()
        for _ in range(3):
            client.writer.write(b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n")
            assert (await client.answer()).status == 200
            assert (await client.ask({}, "/v1/completions")).status == 404
            assert (await client.ask({}, "/v1/models/nine/generate")).status == 404
        assert len(served.asked) == 9

    serve(scenario)


async def closed_after_s(client: Client) -> float:
    begin = asyncio.get_running_loop().time()
    assert await asyncio.wait_for(client.reader.read(), 5) == b""
    return asyncio.get_running_loop().time() - begin


@on_a_site
async def test_a_connection_is_kept_for_a_while_after_its_last_answer(served: Site):
    served.server.config.timeout_keep_alive = 1
    used, left = await served.connect(), await served.connect()
    for client in (used, left):
        await client.ask({"seed": 1})
    for _ in range(4):
        await asyncio.sleep(0.4)
        assert (await used.ask({"seed": 1})).status == 200
    assert await closed_after_s(left) < 0.2, "it was closed meanwhile"
    assert 0.8 < await closed_after_s(used) < 1.5


def test_a_connection_that_waits_for_its_answer_is_kept(host: Host, serve: Serve):
    async def scenario(served: Site) -> None:
        served.server.config.timeout_keep_alive = 1
        client = await served.connect()
        await client.ask({"seed": 1})
        with gate(host):
            client.writer.write(request({"seed": 2}))
            await asyncio.sleep(1.5)
        assert seeds(await client.answer()) == [2]
        assert 0.8 < await closed_after_s(client) < 1.5

    serve(scenario)


def head(data: bytes) -> Head:
    lines = [line.partition(b": ") for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    scope = {"path": GENERATE, "headers": [(name.lower(), value) for name, _, value in lines]}
    return Head(scope, lambda body, size: None, 1.0, "")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (request({"seed": 1}) + request({"seed": 2}), 11),
        (request(raw=b"")[:-2], 0),
        (request(raw=b"a\r\n\r\nb"), 1),
        (request({"seed": 1}).replace(b": 11", b": 011"), 11),
        (request({"seed": 1}).replace(b"content-length: 11", b"transfer-encoding: chunked"), 11),
        (request({"seed": 1}, headers=f"x: {'y' * 4096}\r\n"), 11),
    ],
    ids=["two", "half", "body with an end", "length", "chunks", "long"],
)
def test_what_is_not_one_whole_request_in_the_usual_form_is_not_learned(data: bytes, size: int):
    heads = Heads()
    heads.learn(data, head(data), size)
    assert heads.find(data) is None


def test_only_what_is_one_whole_request_is_found():
    heads, data = Heads(), request({"seed": 1})
    heads.learn(data, head(data), 11)
    found = heads.find(request({"seed": 2}))
    assert found is not None
    assert found[1] == b'{"seed": 2}'
    for other in (data[:-1], data + b" ", data + data, data[1:], b"", b"\r\n\r\n" + data):
        assert heads.find(other) is None


def test_the_oldest_is_forgotten():
    heads = Heads()
    several = [request({"seed": 1}, headers=f"x: {number}\r\n") for number in range(300)]
    for data in several:
        heads.learn(data, head(data), 11)
    known = [number for number, data in enumerate(several) if heads.find(data)]
    assert known == list(range(300 - 256, 300))
