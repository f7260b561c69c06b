"""The pytest plugin: a fixture for the tests of a plugin's author. It is there when brigantine is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from ..media import Media
    from ..model import Model
    from ..plugin import Plugin

__all__ = ["Generate", "generate"]


class Generate(Protocol):
    """See the fixture `generate`."""

    def __call__(
        self,
        plugin: type[Plugin[Any]],
        model: Model | Path | str,
        media_type: str | None = None,
        /,
        **body: Any,
    ) -> list[Media]: ...


@pytest.fixture(scope="session")
def generate() -> Iterator[Generate]:
    """Make a request through the real engine, scheduler and station, without HTTP.

        def test_a_high_chime_is_short(generate):
            [media] = generate(Chime, "models/chime", pitch=20, seed=7)

    `generate(Chime, folder, "audio/ogg", n=3)` asks for another media type and for three. A plugin and a model are
    loaded once in a session.
    """
    from .host import Host  # noqa: PLC0415 - most sessions never need it

    host = Host()
    yield host.generate
    host.close()
