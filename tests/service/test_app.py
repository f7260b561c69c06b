"""What is decided before any process starts."""

from pathlib import Path

import pytest
from brigantine.app import _patience_s, preflight
from brigantine.session import RuntimeMissing, runtime

from tests.tiny import tiny_model


def test_bentomls_timer_outlasts_a_request_and_not_by_much(monkeypatch: pytest.MonkeyPatch):
    assert 60 < _patience_s() <= 70
    monkeypatch.setenv("BRIGANTINE_TIMEOUT_S", "5")
    assert 10 < _patience_s() <= 20
    monkeypatch.setenv("BRIGANTINE_TIMEOUT_S", "soon")
    assert 60 < _patience_s() <= 70


def test_a_damaged_model_does_not_hide_that_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tiny_model(tmp_path, "a-bad-one") / "model.onnx").write_bytes(b"damaged")
    monkeypatch.setenv("BRIGANTINE_MODELS_DIR", str(tmp_path))
    assert preflight().models_dir == tmp_path

    monkeypatch.setenv("BRIGANTINE_REQUIRE_GPU", "1")
    monkeypatch.setattr(runtime(), "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeMissing, match="a GPU is required"):
        preflight()
