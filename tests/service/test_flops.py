"""Flops: what is counted is what the formulas say."""

from pathlib import Path

import numpy as np
import onnx
from brigantine.flops import flops
from brigantine.store import Store
from onnx import TensorProto, helper, numpy_helper

from tests.tiny import SIDE, Z_DIM, tiny_graph


def test_products_are_counted(tmp_path: Path):
    tiny_graph(tmp_path / "model.onnx")
    assert flops(tmp_path / "model.onnx") == 2 * Z_DIM * SIDE * SIDE


def test_convolutions_are_counted_up_and_down(tmp_path: Path):
    shapes = {"up": (8, 4, 4, 4), "down": (6, 2, 3, 3), "flat": (6 * 8 * 8, 10)}  # down: two groups
    nodes = [
        helper.make_node("ConvTranspose", ["x", "up"], ["wide"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["wide", "down"], ["drawn"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["drawn"], ["line"]),
        helper.make_node("Gemm", ["line", "flat"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "g.onnx")

    up = 2 * 8 * 4 * 4 * (4 * 4 * 4)
    down = 2 * 6 * 8 * 8 * (2 * 3 * 3)
    assert flops(tmp_path / "g.onnx") == up + down + 2 * 10 * (6 * 8 * 8)


def test_what_cannot_be_told_is_not_counted(tmp_path: Path):
    graph = helper.make_graph(
        [
            helper.make_node("Odd", ["x"], ["y"], domain="odd"),
            helper.make_node("MatMul", ["y", "y"], ["z"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("odd", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "g.onnx")

    assert flops(tmp_path / "g.onnx") == 0


def test_weights_that_are_inputs_too_and_single_numbers_are_no_batch(tmp_path: Path):
    tiny_graph(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.input.append(
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, [Z_DIM, SIDE * SIDE])
    )
    model.graph.input.append(helper.make_tensor_value_info("white", TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "model.onnx")

    assert flops(tmp_path / "model.onnx") == 2 * Z_DIM * SIDE * SIDE


def test_the_shipped_generator_is_counted_with_its_weights_in_place():
    path = Store().find()["mnist"].path / "model.onnx"
    before = path.read_bytes()
    assert 10e6 < flops(path) < 20e6
    assert path.read_bytes() == before
