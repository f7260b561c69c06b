"""Products that are split into parts: the same numbers from as many products."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from brigantine.rewriting import prune
from brigantine.unsplitting import unsplit
from onnx import TensorProto, helper, numpy_helper

WIDTH = 24


def model(weight: np.ndarray, outputs: int = 2, shows: bool = False, **split: Any) -> onnx.ModelProto:
    """x [2, 3, WIDTH] times a weight, split."""
    parts = [f"part{index}" for index in range(outputs)]
    attributes: dict[str, Any] = {"axis": -1, "num_outputs": outputs} | split
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Split", ["product", *attributes.pop("sizes", [])], parts, **attributes),
    ]
    shown = [*parts, "product"] if shows else parts
    graph = helper.make_graph(
        nodes,
        "splits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in shown],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array([10, weight.shape[-1] - 10]), "sizes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def ran(proto: onnx.ModelProto) -> list[bytes]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(made).tobytes() for made in session.run(None, {"x": drawn(2, 3, WIDTH)})]


@pytest.mark.parametrize("outputs", [2, 3])
def test_parts_are_the_same_to_the_bit(outputs: int):
    proto = model(drawn(WIDTH, 96), outputs)
    before = ran(proto)
    assert unsplit(proto.graph)
    prune(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["MatMul"] * outputs
    assert "w" not in [weight.name for weight in proto.graph.initializer]
    assert ran(proto) == before


@pytest.mark.parametrize(
    "proto",
    [
        model(drawn(WIDTH, 96), axis=1),
        model(drawn(WIDTH, 97)),
        model(drawn(WIDTH, 96), shows=True),
        model(drawn(2, WIDTH, 96)),
        model(drawn(WIDTH, 96), outputs=1),
        model(drawn(WIDTH, 96), num_outputs=None, split=[10, 86]),
        helper.make_model(helper.make_graph([], "empty", [], [])),
    ],
    ids=[
        "another axis",
        "an uneven one",
        "a product that others read",
        "several weights",
        "one part",
        "given sizes of old",
        "none",
    ],
)
def test_what_is_no_such_split_stays(proto: onnx.ModelProto):
    before = proto.graph.SerializeToString()
    assert not unsplit(proto.graph)
    assert proto.graph.SerializeToString() == before


def test_a_split_into_given_sizes_stays():
    proto = model(drawn(WIDTH, 96))
    split = proto.graph.node[1]
    split.input.append("sizes")
    del split.attribute[:]
    split.attribute.append(helper.make_attribute("axis", -1))
    ran(proto)
    assert not unsplit(proto.graph)
