"""Graphs of one transposed convolution, or some, and what they compute."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

X86 = pytest.mark.skipif(
    platform.machine() != "x86_64",
    reason=f"needs an x86-64 processor, and this is {platform.machine()}, which runs graphs as they are; run it on one",
)


def layer(
    folder: Path,
    weight: tuple[int, int, int, int] = (16, 32, 4, 4),
    side: tuple[int, int] = (4, 6),
    bias: bool = True,
    after: str = "Relu",
    sizes: bool = True,
    **attributes: Any,
) -> Path:
    """A graph with one transposed convolution of [N, C, H, W], what comes after it, and what else reads nothing."""
    rng = np.random.default_rng(sum(weight))
    values = {"weight": rng.standard_normal(weight, dtype=np.float32)}  # [C_in, C_out, K_h, K_w]
    if bias:
        values["bias"] = rng.standard_normal(weight[1] * attributes.get("group", 1), dtype=np.float32)
    names = list(values)
    nodes = [helper.make_node("ConvTranspose", ["x", *names], ["spread"], **attributes)]
    slope: dict[str, Any] = {"alpha": 0.3} if after == "LeakyRelu" else {}
    nodes.append(helper.make_node(after, ["spread"], ["y"], **slope))
    height, width = side if sizes else ("H", "W")
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weight[0], height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "C", "H_out", "W_out"])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    path = folder / "layer.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def run(graph: Path | bytes, x: np.ndarray, output: str = "y") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = graph if isinstance(graph, bytes) else str(graph)
    session: Any = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    return session.run([output], {"x": x})[0]


def kinds(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(graph).graph.node]


def rows(count: int, channels: int, side: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(count).standard_normal(
        (count, channels, *side), dtype=np.float32
    )  # [N, C, H, W]


USUAL: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]}


def changed(path: Path, change: Any) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def tiled(graph: bytes | None) -> bool:
    """Whether one convolution makes several products of a tile."""
    kernels = [
        node for node in onnx.load_model_from_string(graph or b"").graph.node if node.op_type == "Conv"
    ]
    groups = [item.i for node in kernels for item in node.attribute if item.name == "group"]
    return 16 in groups or 9 in groups or 12 in groups


def drawn(path: Path, made: int = 1, shown: bool = False) -> Path:
    """A layer, its activation and one more that makes `made` channels of it."""

    def again(model: onnx.ModelProto) -> None:
        weight = np.random.default_rng(9).standard_normal((64, made, 4, 4), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "second"))
        model.graph.initializer.append(numpy_helper.from_array(np.full(made, 0.5, np.float32), "second_bias"))
        node = helper.make_node("ConvTranspose", ["relu", "second", "second_bias"], ["y"], **USUAL)
        model.graph.node[1].output[0] = "relu"
        model.graph.node.append(node)
        if shown:
            model.graph.output.append(helper.make_tensor_value_info("relu", TensorProto.FLOAT, None))

    return changed(path, again)


def projected(path: Path, transposed: bool = False, bias: bool = True, **attributes: Any) -> Path:
    """The layer's input is made by a matrix product and normalised: x is [N, 10, 1, 1]."""

    def normalise(model: onnx.ModelProto) -> None:
        rng = np.random.default_rng(5)
        depth, height, width = (
            size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:]
        )
        features = depth * height * width
        matrix = rng.standard_normal((features, 10) if transposed else (10, features), dtype=np.float32)
        values = {"matrix": matrix, "added": rng.standard_normal(features, dtype=np.float32)}
        values |= {
            name: rng.uniform(0.5, 2, depth).astype(np.float32)
            for name in ("scale", "shift", "mean", "variance")
        }
        inits = [numpy_helper.from_array(value, name) for name, value in values.items()]
        inits.append(numpy_helper.from_array(np.array([-1, depth, height, width]), "shape"))
        model.graph.initializer.extend(inits)
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 10, 1, 1]))
        names = ["flat", "matrix", *(["added"] if bias else [])]
        nodes = [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", names, ["line"], transB=int(transposed), **attributes),
            helper.make_node("Reshape", ["line", "shape"], ["picture"]),
            helper.make_node(
                "BatchNormalization",
                ["picture", "scale", "shift", "mean", "variance"],
                ["even"],
                epsilon=1e-3,
            ),
        ]
        model.graph.node[0].input[0] = "even"
        for place, node in enumerate(nodes):
            model.graph.node.insert(place, node)

    return changed(path, normalise)
