"""Who hangs up takes the request back, and nothing outlives a connection, however its last request has ended."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from weakref import ref

import pytest
from brigantine.api import ACCESS, Host
from brigantine.api.direct import DirectProtocol

from tests.service.api.site import GENERATE, LARGE, Client, Serve, Site, flying, gate, held, request
from tests.service.toys import plugin_of, until


def test_a_hang_up_takes_it_back_at_once(host: Host, serve: Serve, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, ACCESS)

    async def scenario(served: Site) -> None:
        with gate(host):
            client, other = await served.connect(), await served.connect()
            client.writer.write(request({"n": 5}))
            other.writer.write(request({"n": 5}))
            await until(lambda: held(host) == 10)
            client.writer.transport.abort()
            await asyncio.sleep(0.1)
            assert held(host) == 5
        assert (await other.answer()).status == 200

    serve(scenario)
    assert host.access is not None
    host.access.flush()
    statuses = [
        line.split(f"{GENERATE} ")[1].split()[0] for line in caplog.text.splitlines() if GENERATE in line
    ]
    assert statuses == ["499", "200"]


def test_a_hang_up_is_seen_behind_a_large_body(host: Host, serve: Serve):
    async def scenario(served: Site) -> None:
        with gate(host):
            client = await served.connect()
            client.writer.write(request(raw=LARGE))
            await until(lambda: held(host) == 1)
            client.writer.transport.abort()
            await asyncio.sleep(0.1)
            assert held(host) == 0

    serve(scenario)


def test_who_hangs_up_at_any_moment_is_counted_and_logged_once(
    host: Host, serve: Serve, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, ACCESS)
    dice = random.Random(7)
    begun = 0

    async def asks(served: Site) -> None:
        nonlocal begun
        client = await served.connect()
        client.writer.write(request({"n": 4}, headers="x-request-id: mine\r\n"))
        begun += 1
        await asyncio.sleep(dice.random() * 0.02)
        client.writer.transport.abort()

    async def scenario(served: Site) -> None:
        for _ in range(6):
            await asyncio.gather(*(asks(served) for _ in range(50)))
        await until(lambda: not served.server.server_state.connections)
        await asyncio.sleep(0.1)
        assert held(host) == 0
        assert flying(host) == 0

    serve(scenario)
    assert host.access is not None
    host.access.flush()
    lines = [line for line in caplog.text.splitlines() if " mine" in line]
    assert 0 < len(lines) <= begun, "some leave before their request is read"
    assert {line.split(f"{GENERATE} ")[1].split()[0] for line in lines} <= {"200", "499"}


@pytest.mark.parametrize("end", ["made", "late", "failed", "gone"])
def test_nothing_of_a_connection_waits_for_the_garbage_collector(
    host: Host, serve: Serve, monkeypatch: pytest.MonkeyPatch, end: str
):
    async def asks(client: Client) -> None:
        if end == "gone":
            with gate(host):
                client.writer.write(request())
                await until(lambda: held(host) == 1)
                client.writer.transport.abort()
                await until(lambda: held(host) == 0)
        elif end == "late":
            with gate(host):
                assert (await client.ask(headers="x-request-timeout-ms: 20\r\n")).status == 504
        else:
            if end == "failed":
                monkeypatch.setattr(plugin_of(host.engine), "render", lambda *_: 1 / 0)  # type: ignore[arg-type]
            assert (await client.ask()).status == (200 if end == "made" else 500)

    async def scenario(served: Site) -> None:
        gc.collect()
        gc.disable()
        try:
            client = await served.connect()
            await until(lambda: served.server.server_state.connections)
            [protocol] = served.server.server_state.connections
            kept = ref(protocol)
            await asks(client)
            cycle = ref(protocol.cycle)  # type: ignore[union-attr]
            del protocol
            client.writer.close()
            await until(lambda: not served.server.server_state.connections)
            await asyncio.sleep(0.1)
            assert (kept(), cycle()) == (None, None)
        finally:
            gc.enable()

    serve(scenario)


def test_an_answer_that_is_there_when_its_client_has_just_gone_is_not_written(
    host: Host, serve: Serve, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, ACCESS)

    async def scenario(served: Site) -> None:
        with gate(host):
            client = await served.connect()
            client.writer.write(request(raw=LARGE))
            await until(lambda: held(host) == 1)
            [protocol] = served.server.server_state.connections
            assert isinstance(protocol, DirectProtocol)
            assert protocol._making is not None
            assert not protocol.cycle.body, "it has been read"
            protocol._making.done.set_result(None)
            protocol.connection_lost(None)
            await asyncio.sleep(0.1)

    serve(scenario)
    assert host.access is not None
    host.access.flush()
    assert f"{GENERATE} 499" in caplog.text
