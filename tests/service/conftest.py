from __future__ import annotations

from pathlib import Path

import pytest
from brigantine.shared import Shared


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shared:
    """A service's own folder, which this process finds until the test ends."""
    monkeypatch.setenv("_BRIGANTINE_SHARED_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Shared.create()
