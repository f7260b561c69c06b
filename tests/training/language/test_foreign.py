"""The exporter of foreign weights: which graph a model gets, and how it is stored."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from brigantine_training.language import foreign
from brigantine_training.language.foreign import export_folder
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from tests.hub import ARCHITECTURES, hub_folder

SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}


@pytest.mark.parametrize(
    ("architecture", "changes", "written"),
    [
        ("Llama", {}, True),
        ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}, True),
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, True),
        ("Llama", {"head_dim": 32}, True),
        ("Llama", {"head_dim": 24}, False),
        ("Llama", {"rope_parameters": SCALED}, False),
        ("Llama", {"attention_bias": True}, False),
        ("Llama", {"mlp_bias": True}, False),
        ("Llama", {"hidden_act": "gelu"}, False),
        ("Mistral", {}, False),
        ("Mistral", {"sliding_window": None}, True),
        ("Mistral", {"sliding_window": 128}, True),
        ("Qwen2", {}, True),
        ("Qwen3", {"head_dim": 16}, False),  # norms of queries and keys
    ],
)
def test_a_llama_is_written_and_any_other_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, changes: dict[str, Any], written: bool
):
    monkeypatch.setitem(ARCHITECTURES, "Qwen3", ARCHITECTURES["Llama"])
    traced: list[str] = []
    monkeypatch.setattr(foreign, "_write_traced", lambda *_: str(traced.append("traced")))
    network = hub_folder(tmp_path, architecture, **changes)
    (tmp_path / "out").mkdir()

    made = export_folder(tmp_path, tmp_path / "out")

    assert made.facts["exporter"] == ("written" if written else "traced")
    assert bool(traced) != written == (tmp_path / "out" / "model.onnx").is_file()
    with torch.no_grad():
        expected = network(input_ids=torch.tensor([[3, 1, 4]])).logits[0].numpy()
    np.testing.assert_allclose(made.logits([3, 1, 4]), expected, atol=1e-4)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
def test_weights_that_are_stored_as_float16_stay_so(tmp_path: Path, stored: str):
    hub_folder(tmp_path, "Llama").to(getattr(torch, stored)).save_pretrained(tmp_path)
    (tmp_path / "out").mkdir()

    export_folder(tmp_path, tmp_path / "out")

    matrices = [
        one for one in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer if len(one.dims) == 2
    ]
    kinds = {one.data_type for one in matrices if one.name not in ("cosines", "sines")}
    assert kinds == {onnx.TensorProto.FLOAT16 if stored == "float16" else onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("architecture", ["GPT2", "Llama"])
def test_large_weights_lie_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
):
    monkeypatch.setattr(foreign, "_INLINE_BYTES", 1000)
    mask = ALL_MASK_ATTENTION_FUNCTIONS["eager"]
    level = transformers.utils.logging.get_verbosity()
    hub_folder(tmp_path, architecture)
    (tmp_path / "out").mkdir()

    export_folder(tmp_path, tmp_path / "out")

    graph, weights = (tmp_path / "out" / name for name in ("model.onnx", "model.onnx.data"))
    assert graph.stat().st_size < weights.stat().st_size
    onnxruntime.InferenceSession(graph)
    assert ALL_MASK_ATTENTION_FUNCTIONS["eager"] is mask, "transformers is left as it was"
    assert transformers.utils.logging.get_verbosity() == level
