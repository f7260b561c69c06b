"""Tests of a built image. `make image-test` builds it and runs them; `make test` does not collect them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.e2e.server import Server, serving
from tests.image.container import IMAGE, Container, running
from tests.image.figures import FIGURES

collect_ignore_glob = [] if IMAGE else ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("measured")
        for line in FIGURES:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def server() -> Iterator[Container]:
    """The container that the tests of tests/e2e ask, as if it were the server that they start themselves."""
    with running(IMAGE) as container:
        yield container


@pytest.fixture(scope="session")
def client(server: Container) -> Iterator[OpenAI]:
    """The official client, unmodified, pointed at the container."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What `make serve` starts, without a container."""
    with serving(tmp_path_factory.mktemp("checkout")) as server:
        yield server
