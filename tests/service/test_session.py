import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from brigantine.errors import ModelInvalid
from brigantine.model import Model
from brigantine.session import RuntimeMissing, Session, runtime

from tests.tiny import SIDE, Z_DIM, tiny_model


def batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(size)
    return {
        "z": rng.standard_normal((size, Z_DIM), dtype=np.float32),  # [N, Z_DIM]
        "label": rng.integers(3, size=size),  # [N]
    }


def test_a_batch_goes_in_and_a_batch_comes_out(tmp_path: Path):
    session = Session.open(Model.open(tiny_model(tmp_path)))

    image = session.run(batch(5))["image"]

    assert (image.shape, image.dtype) == ((5, SIDE, SIDE, 1), np.uint8)
    assert session.device == "cpu"


def test_a_graph_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path):
    path = tiny_model(tmp_path, inputs=[{"name": "noise", "dtype": "float32", "shape": ["batch", 4]}])

    with pytest.raises(ModelInvalid, match=r"states the inputs {'noise': 'float32'}, the graph has {'z'"):
        Session.open(Model.open(path))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path):
    import hashlib

    path = tiny_model(tmp_path, files={"model.onnx": hashlib.sha256(b"rubbish").hexdigest()})
    (path / "model.onnx").write_bytes(b"rubbish")

    with pytest.raises(ModelInvalid, match="ONNX Runtime cannot load it"):
        Session.open(Model.open(path))


def test_a_gpu_that_is_not_there_is_not_replaced_in_silence(tmp_path: Path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("needs a build of ONNX Runtime without CUDA; this environment has onnxruntime-gpu")
    with pytest.raises(RuntimeMissing, match="device cuda was asked for, but"):
        Session.open(Model.open(tiny_model(tmp_path)), device="cuda")


def fake_distribution(folder: Path, name: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_two_builds_at_once_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_distribution(tmp_path, "onnxruntime-gpu")
    fake_distribution(tmp_path, "onnxruntime")
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.version("onnxruntime-gpu") == "1.0"

    with pytest.raises(RuntimeMissing, match=r"both installed .* Keep one"):
        runtime()


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(RuntimeMissing, match="Install one build: `pip install onnxruntime`"):
        runtime()
