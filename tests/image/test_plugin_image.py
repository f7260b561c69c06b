"""tests/e2e/test_chime.py, asked of the image that `deploy/image/plugin` has put the plugin into."""

from collections.abc import Iterator

import pytest

from tests.e2e.test_chime import *  # noqa: F403
from tests.image.container import PLUGIN_IMAGE, Container, running


@pytest.fixture(scope="module")
def chimes() -> Iterator[Container]:
    with running(PLUGIN_IMAGE) as container:
        yield container
