import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from brigantine.errors import ModelInvalid
from brigantine.model import Model
from brigantine.opening import gpu_providers
from brigantine.session import RuntimeMissing, Session, SessionOptions, runtime

from tests.tiny import SIDE, tiny_batch, tiny_model


def test_a_batch_goes_in_and_a_batch_comes_out(tmp_path: Path):
    session = Session.open(Model.open(tiny_model(tmp_path)), SessionOptions(device="cpu"))

    image = session.run(tiny_batch(5))["image"]

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


def test_a_required_gpu_that_is_not_there_is_not_replaced_in_silence(tmp_path: Path):
    import onnxruntime

    if onnxruntime.get_device() == "GPU":
        pytest.skip("needs a build of ONNX Runtime without CUDA; this environment has onnxruntime-gpu")
    with pytest.raises(RuntimeMissing, match=r"a GPU is required, but ONNX Runtime .* runs tiny on the CPU"):
        Session.open(Model.open(tiny_model(tmp_path)), require_gpu=True)


def test_tensorrt_is_told_the_shapes_and_where_to_keep_its_engines(tmp_path: Path):
    model = Model.open(tiny_model(tmp_path, max_batch=6))
    options = SessionOptions(tensorrt=True, tensorrt_fp16=True, tensorrt_cache_dir=tmp_path)
    preloaded: list[bool] = []
    ort: Any = SimpleNamespace(preload_dlls=lambda: preloaded.append(True))

    (first, trt), (second, _) = gpu_providers(ort, model, options, graphs=True)

    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert (trt["trt_profile_min_shapes"], trt["trt_profile_max_shapes"]) == (
        "z:1x4,label:1",
        "z:6x4,label:6",
    )
    assert (trt["trt_fp16_enable"], trt["trt_engine_cache_path"]) == (1, str(tmp_path))
    assert preloaded == [True]


def test_the_memory_of_a_gpu_is_capped_and_its_algorithms_are_not_timed(tmp_path: Path):
    model = Model.open(tiny_model(tmp_path))
    ort: Any = SimpleNamespace(preload_dlls=lambda: None)

    [(_, cuda)] = gpu_providers(ort, model, SessionOptions(gpu_mem_limit_bytes=10**9), graphs=False)

    assert cuda["gpu_mem_limit"] == 10**9
    assert (cuda["arena_extend_strategy"], cuda["enable_cuda_graph"]) == ("kSameAsRequested", 0)
    assert cuda["cudnn_conv_algo_search"] == "HEURISTIC"


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
