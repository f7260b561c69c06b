"""What the tests of training share: one thread, and caches that are not the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from brigantine_training.evaluate import Recipe, judge

from tests.training.shapes import QUICK


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks gain nothing from more, and on a busy machine two threads are slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' own cache, in which a classifier is trained once for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "brigantine" / "evaluate"


@pytest.fixture
def quick_recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe that is taken where none is given."""
    monkeypatch.setattr(judge, "Recipe", lambda: QUICK)
    return QUICK
