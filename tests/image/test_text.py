"""tests/e2e/test_text.py, asked of a container that has the same plugin mounted."""

from collections.abc import Iterator

import pytest

from tests.e2e.test_text import *  # noqa: F403
from tests.image.container import IMAGE, Container, running
from tests.typist import typist_model


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    plugins = typist_model(tmp_path_factory.mktemp("text") / "plugins")
    with running(
        IMAGE, f"--volume={plugins}:/plugins:ro", "--env=BRIGANTINE_PLUGINS_DIR=/plugins"
    ) as container:
        yield container
