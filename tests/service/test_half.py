"""Half precision: a language model's graph, written anew, says nearly what it said."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brigantine.half import halved
from onnx import TensorProto, helper, numpy_helper

from tests.parrot import parrot_model
from tests.scribble import scribble_model
from tests.tiny import tiny_model


def opened(graph: str | bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def read(engine: Any, dtype: type) -> np.ndarray:
    """The logits of twenty tokens."""
    ids = np.arange(20)[None] * 7 % 288
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    pasts = [node.name for node in engine.get_inputs() if node.name.startswith("past_key_values.")]
    return engine.run(["logits"], feeds | {name: np.zeros((1, 2, 0, 16), dtype) for name in pasts})[0]


def test_the_logits_are_nearly_the_same_and_the_cache_is_half(tmp_path: Path):
    path = scribble_model(tmp_path) / "model.onnx"
    graph = halved(path)
    assert graph is not None
    half = opened(graph)

    types = {node.name: node.type for node in (*half.get_inputs(), *half.get_outputs())}
    assert types["past_key_values.0.key"] == types["present.1.value"] == "tensor(float16)"
    assert types["logits"] == "tensor(float)"
    expected, made = read(opened(str(path)), np.float32), read(half, np.float16)
    assert not np.array_equal(made, expected)
    np.testing.assert_allclose(made, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("make", [parrot_model, tiny_model])
def test_what_has_no_such_attention_stays_as_it_is(tmp_path: Path, make: Any):
    assert halved(make(tmp_path) / "model.onnx") is None


def test_what_is_half_already_stays_as_it_is(tmp_path: Path):
    graph = halved(scribble_model(tmp_path) / "model.onnx")
    assert graph is not None
    (tmp_path / "half.onnx").write_bytes(graph)
    assert halved(tmp_path / "half.onnx") is None


def test_weights_beside_the_graph_stay_there(tmp_path: Path):
    path = scribble_model(tmp_path) / "model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert halved(path) is None


def turning(path: Path, read: str, shown: str = "turned") -> Path:
    """A model that also makes 0.3 * (cos(0.3 * x) + sin(0.3 * x)) of what is read: `places`, or what it has made."""
    proto = onnx.load(scribble_model(path) / "model.onnx")
    proto.graph.input.append(helper.make_tensor_value_info("places", TensorProto.INT64, [1, 1]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([[0.3]], np.float32), "pace"))
    proto.graph.node.extend(
        [
            helper.make_node("Cast", [read], ["place"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["place", "pace"], ["angle"])
            if read == "places"
            else helper.make_node("Mul", ["place", "pace"], ["angle"]),
            helper.make_node("Cos", ["angle"], ["cosine"]),
            helper.make_node("Sin", ["angle"], ["sine"]),
            helper.make_node("Add", ["cosine", "sine"], ["both"]),
            helper.make_node("Mul", ["both", "pace"], ["turned"]),
        ]
    )
    proto.graph.output.append(helper.make_tensor_value_info(shown, TensorProto.FLOAT, None))
    onnx.save(proto, path / "turning.onnx")
    return path / "turning.onnx"


def turned(graph: bytes | None, place: int, shown: str = "turned") -> np.ndarray:
    """What it makes of a token at this place."""
    assert graph is not None
    engine = opened(graph)
    ids = np.array([[7]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "places": np.array([[place]])}
    pasts = [node.name for node in engine.get_inputs() if node.name.startswith("past_key_values.")]
    [made] = engine.run([shown], feeds | {name: np.zeros((1, 2, 0, 16), np.float16) for name in pasts})
    return made


def test_positions_are_turned_into_cosines_in_float32(tmp_path: Path):
    """9,001 is none that float16 has; the nearest, 9,000, is another 0.3 away."""
    made = turned(halved(turning(tmp_path, "places")), 9001)

    assert made.dtype == np.float16
    assert made.item() == pytest.approx(0.3 * (np.cos(9001 * 0.3) + np.sin(9001 * 0.3)), abs=1e-3)


def test_a_cosine_that_is_shown_stays_where_it_is(tmp_path: Path):
    graph = halved(turning(tmp_path, "places", "cosine"))

    assert turned(graph, 5, "cosine").item() == pytest.approx(np.cos(1.5), abs=2e-3)


@pytest.mark.parametrize("read", ["logits", "embeddings"])
def test_what_waves_by_more_than_positions_is_half(tmp_path: Path, read: str):
    path = turning(tmp_path, "logits")
    proto = onnx.load(path)
    if read != "logits":  # what a token stands for, before anything is multiplied
        [embedded] = [node.output[0] for node in proto.graph.node if node.op_type == "Gather"]
        next(node for node in proto.graph.node if node.output[0] == "place").input[0] = embedded
        onnx.save(proto, path)
    graph = halved(path)

    assert graph is not None
    made = onnx.load_model_from_string(graph).graph
    assert {one.name: one.type.tensor_type.elem_type for one in made.output}["turned"] == TensorProto.FLOAT16
    assert not any(name.startswith("waves.") for node in made.node for name in node.output)
