from __future__ import annotations

from collections.abc import Iterator

import pytest
from brigantine.api import Entry, Host
from brigantine.engine import Engine
from starlette.applications import Starlette
from starlette.testclient import TestClient


@pytest.fixture
def host(engine: Engine) -> Host:
    return Host(engine)


@pytest.fixture
def client(host: Host) -> Iterator[TestClient]:
    """The routes as BentoML serves them: `Entry` around an app, over ASGI."""
    with TestClient(Entry(Starlette(), host), raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        yield client
