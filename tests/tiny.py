"""A real model small enough to build in a test: a latent and a label in, 8x8 grey pixels out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from brigantine.model import MANIFEST, Label, Manifest, TensorSpec, sha256_of
from onnx import TensorProto, helper, numpy_helper

Z_DIM, SIDE, LABELS = 4, 8, ("zero", "one", "two")


def tiny_graph(path: Path, swayed: bool = False) -> None:
    """Write image = uint8(255 * sigmoid(z @ weights + bias[label])), reshaped to [batch, 8, 8, 1].

    With `swayed` the mean over the batch is taken from the product: a row then depends on its company, more than any
    rounding could make it.
    """
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((Z_DIM, SIDE * SIDE)).astype(np.float32)
    bias = rng.standard_normal((len(LABELS), SIDE * SIDE)).astype(np.float32)
    initializers = {
        "weights": weights,
        "bias": bias,
        "white": np.float32(255),
        "shape": np.array([-1, SIDE, SIDE, 1], dtype=np.int64),
    }
    if swayed:
        initializers["axes"] = np.array([0], dtype=np.int64)
    nodes = [
        *(
            [
                helper.make_node("MatMul", ["z", "weights"], ["alone"]),
                helper.make_node("ReduceMean", ["alone", "axes"], ["mean"]),
                helper.make_node("Sub", ["alone", "mean"], ["drawn"]),
            ]
            if swayed
            else [helper.make_node("MatMul", ["z", "weights"], ["drawn"])]
        ),
        helper.make_node("Gather", ["bias", "label"], ["offset"]),
        helper.make_node("Add", ["drawn", "offset"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["grey"]),
        helper.make_node("Mul", ["grey", "white"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["flat"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["flat", "shape"], ["image"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", Z_DIM]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def tiny_model(folder: Path, name: str = "tiny", swayed: bool = False, **changes: object) -> Path:
    """Write a complete model folder called `name` below `folder` and return its path. For `swayed` see `tiny_graph`."""
    path = folder / name
    path.mkdir(parents=True)
    tiny_graph(path / "model.onnx", swayed)
    fields: dict[str, object] = {
        "name": name,
        "plugin": "image",
        "files": {"model.onnx": sha256_of(path / "model.onnx")},
        "inputs": (
            TensorSpec(name="z", dtype="float32", shape=("batch", Z_DIM)),
            TensorSpec(name="label", dtype="int64", shape=("batch",)),
        ),
        "outputs": (TensorSpec(name="image", dtype="uint8", shape=("batch", SIDE, SIDE, 1)),),
        "labels": tuple(Label(name=label, aliases=(str(i),)) for i, label in enumerate(LABELS)),
    }
    manifest = Manifest.model_validate(fields | changes)
    (path / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    return path


def tiny_batch(size: int) -> dict[str, np.ndarray]:
    """Its inputs, others for each size."""
    rng = np.random.default_rng(size)
    return {
        "z": rng.standard_normal((size, Z_DIM), dtype=np.float32),  # [N, Z_DIM]
        "label": rng.integers(3, size=size),  # [N]
    }
