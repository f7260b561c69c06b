from pathlib import Path

import numpy as np
import onnx
import pytest
from brigantine import Model, Session
from brigantine.testing import TensorSpec, model_folder, tiny_image, tiny_onnx


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": ("batch", *shape)})


def run(path: Path, **rows: object) -> dict[str, np.ndarray]:
    return Session.open(Model.open(path)).run({name: np.asarray(values) for name, values in rows.items()})


def test_a_tiny_image_depends_on_its_latent_and_on_its_label(tmp_path: Path):
    path = tiny_image(tmp_path, size=6, labels=("cat", "dog"))
    z = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)

    image = run(path, z=z[[0, 0, 1]], label=np.array([0, 1, 0]))["image"]

    assert (image.shape, image.dtype) == ((3, 6, 6, 3), np.uint8)
    assert not np.array_equal(image[0], image[1])
    assert not np.array_equal(image[0], image[2])
    assert image.min() < 64 and image.max() > 192
    assert [label.aliases for label in Model.open(path).manifest.labels] == [("0",), ("1",)]


def test_a_row_has_the_same_bits_in_every_batch(tmp_path: Path):
    outputs = [spec("wave", "float32", 37), spec("image", "uint8", 5, 5, 1)]
    path = tiny_onnx(tmp_path, "tiny", "image", [spec("z", "float32", 6)], outputs)
    z = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    whole = run(path, z=z)

    for size in range(1, 40):
        part = run(path, z=z[:size])
        assert all(np.array_equal(part[name], whole[name][:size]) for name in whole), size


@pytest.mark.parametrize(
    "dtype", ["bool", "float16", "float32", "float64", "int8", "int32", "int64", "uint8"]
)
def test_every_type_of_a_manifest_goes_in_and_comes_out(tmp_path: Path, dtype: str):
    path = tiny_onnx(tmp_path, "tiny", "any", [spec("x", dtype, 3)], [spec("y", dtype, 2, 2)])

    y = run(path, x=np.array([[0, 1, 0], [1, 1, 0]], dtype))["y"]

    assert (y.shape, y.dtype) == ((2, 2, 2), np.dtype(dtype))
    assert not np.array_equal(y[0], y[1]) or dtype == "bool"


def test_a_graph_of_ones_own_gets_the_manifest_that_it_needs(tmp_path: Path):
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node("Add", ["x", "one"], ["y"])],
        "plus",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", 2, "time"])],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", 2, "time"])],
        [onnx.numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    proto = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)

    path = model_folder(tmp_path, "plus", "adder", proto, labels=["a"])

    manifest = Model.open(path).manifest
    assert (manifest.name, manifest.plugin) == ("plus", "adder")
    assert manifest.inputs == (TensorSpec(name="x", dtype="float32", shape=("rows", 2, "time")),)
    assert run(path, x=np.zeros((1, 2, 3), np.float32))["y"].tolist() == [[[1, 1, 1], [1, 1, 1]]]


def test_a_shape_that_is_not_fixed_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="x: expected a shape that is fixed but for the batch"):
        tiny_onnx(tmp_path, "tiny", "any", [spec("x", "float32", "time")], [spec("y", "float32")])
