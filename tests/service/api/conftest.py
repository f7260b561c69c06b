from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from brigantine.api import Entry, Host
from brigantine.engine import Engine
from brigantine.settings import Settings
from starlette.applications import Starlette
from starlette.testclient import TestClient

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
