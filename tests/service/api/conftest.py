from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from brigantine.api import Entry, Host
from brigantine.engine import Engine
from brigantine.settings import Settings
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.service.api.site import Scenario, Serve, site
from tests.typist import typist_model


@pytest.fixture
def host(engine: Engine) -> Host:
    return Host(engine)


@pytest.fixture
def client(host: Host) -> Iterator[TestClient]:
    """The routes as BentoML serves them: `Entry` around an app, over ASGI."""
    with TestClient(Entry(Starlette(), host), raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        yield client


@pytest.fixture
def prose(tmp_path: Path) -> Iterator[Engine]:
    """An engine that runs the typist's model, `prose`."""
    settings = Settings(plugins_dir=typist_model(tmp_path / "plugins"), max_n=8, breaker_failures=0)
    engine = Engine.start(settings, only="prose")
    yield engine
    engine.close()


@pytest.fixture
def texts(prose: Engine) -> Iterator[TestClient]:
    """The routes, with a model that makes text."""
    with TestClient(Entry(Starlette(), Host(prose)), raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        yield client


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def serve(request: pytest.FixtureRequest, host: Host) -> Serve:
    """Plays a scenario on a server, in each of the loops that there are."""

    def run(scenario: Scenario) -> Any:
        async def played() -> Any:
            async with site(host) as served:
                return await asyncio.wait_for(scenario(served), 60)

        return request.param(played())

    return run
