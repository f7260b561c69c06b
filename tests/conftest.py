"""What many tests need: a store of their own, a tiny model, an engine that runs it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import hypothesis
import pytest

# One example that a busy machine holds up is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Before anything imports bentoml: the tests must not see, or touch, the models of whoever runs them.
os.environ["BENTOML_HOME"] = tempfile.mkdtemp(prefix="brigantine-tests-")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
for _name in [name for name in os.environ if name.startswith("BRIGANTINE_")]:
    del os.environ[_name]

from brigantine.engine import Engine  # noqa: E402
from brigantine.settings import Settings  # noqa: E402

from tests.tiny import tiny_model  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A folder with one model, `tiny`."""
    folder = tmp_path / "models"
    tiny_model(folder)
    return folder


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What settings are made from then on run models on the CPU, beside a GPU, too."""
    monkeypatch.setenv("BRIGANTINE_DEVICE", "cpu")


@pytest.fixture
def settings(models_dir: Path) -> Settings:
    return Settings(models_dir=models_dir, threads=2)


@pytest.fixture
def engine(settings: Settings):
    """An engine that runs `tiny`."""
    engine = Engine.start(settings, only="tiny")
    yield engine
    engine.close()
