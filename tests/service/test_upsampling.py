"""Transposed convolutions as plain ones: the same pictures of any layer, and the same bits in any batch."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brigantine.model import GRAPH, MANIFEST, Manifest, Model, TensorSpec, sha256_of
from brigantine.session import Session, SessionOptions
from brigantine.upsampling import rewritten
from google.protobuf.message import DecodeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.service.layers import USUAL, X86, changed, drawn, kinds, layer, projected, rows, run, tiled

MNIST = Path("plugins/brigantine_image/models/mnist")

pytestmark = X86


@st.composite
def usual(draw: st.DrawFn) -> dict[str, Any]:
    """A layer whose output is as long as its input times the stride, along each axis."""
    kernels, strides, before, after, extra = [], [], [], [], []
    for _ in range(2):
        stride, more = draw(st.integers(1, 3)), draw(st.integers(0, 4))
        kernel = stride + more
        first = draw(st.integers(0, more))
        added = draw(st.integers(0, stride - 1))
        for values, value in zip(
            (kernels, strides, before, after, extra),
            (kernel, stride, first, more - first + added, added),
            strict=True,
        ):
            values.append(value)
    channels = draw(st.sampled_from([(16, 16), (32, 16), (128, 32), (16, 48)]))
    return {
        "weight": (*channels, *kernels),
        "side": (draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        "bias": draw(st.booleans()),
        "after": draw(st.sampled_from(["Relu", "LeakyRelu", "Tanh"])),
        "strides": strides,
        "pads": before + after,
        "output_padding": extra,
    }


@settings(max_examples=300, deadline=None)
@given(described=usual(), for_gpu=st.booleans())
def test_any_layer_computes_what_it_did(
    tmp_path_factory: pytest.TempPathFactory, described: dict[str, Any], for_gpu: bool
):
    path = layer(tmp_path_factory.mktemp("layer"), **described)
    x = rows(3, described["weight"][0], described["side"])

    made = rewritten(path, for_gpu)

    assume(made is not None)
    assert np.allclose(run(made or b"", x), run(path, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("weight", "side", "attributes"),
    [
        ((128, 64, 4, 4), (8, 8), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),  # by pairs of rows and columns
        ((64, 32, 4, 4), (8, 8), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),  # by pairs of rows
        ((64, 32, 4, 4), (7, 7), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),  # as they are
        ((128, 64, 4, 4), (7, 7), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),  # in tiles of three
        ((128, 64, 4, 4), (9, 10), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),  # of two and of three
        ((128, 16, 8, 4), (7, 9), {"strides": [4, 2], "pads": [2, 1, 2, 1]}),
        ((32, 16, 3, 3), (8, 8), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        ((32, 16, 5, 5), (5, 4), {"strides": [2, 2], "pads": [2, 2, 2, 2], "output_padding": [1, 1]}),
        ((32, 16, 6, 6), (4, 4), {"strides": [2, 2], "pads": [2, 2, 2, 2]}),
        ((32, 16, 3, 3), (4, 4), {"pads": [1, 1, 1, 1]}),
        ((32, 16, 8, 8), (4, 4), {"strides": [4, 4], "pads": [2, 2, 2, 2]}),
        ((32, 16, 4, 3), (4, 4), {"strides": [2, 1], "pads": [1, 1, 1, 1]}),
    ],
)
def test_a_usual_layer_is_made_of_plain_convolutions(
    tmp_path: Path, weight: tuple[int, int, int, int], side: tuple[int, int], attributes: dict[str, Any]
):
    path = layer(tmp_path, weight, side, **attributes)

    made = rewritten(path)

    assert made is not None and "Conv" in kinds(made) and "ConvTranspose" not in kinds(made)
    x = rows(3, weight[0], side)
    reference: Any = ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})
    assert np.allclose(run(made, x), reference[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("made", [16, 3])
def test_for_a_gpu_no_product_is_saved_and_one_node_places_all_pixels(tmp_path: Path, made: int):
    path = layer(tmp_path, (128, made, 4, 4), (8, 8), **USUAL)

    graph = rewritten(path, for_gpu=True)

    assert graph is not None and kinds(graph) == ["Conv"] * 4 + ["Concat", "Relu", "DepthToSpace"]
    x = rows(3, 128, (8, 8))
    assert np.allclose(run(graph, x), run(path, x), rtol=1e-4, atol=1e-4)


def test_on_a_gpu_nothing_else_is_written_anew(tmp_path: Path):
    path = projected(drawn(layer(tmp_path, (128, 64, 4, 4), (7, 7), **USUAL)))

    made = rewritten(path, for_gpu=True)

    assert made is not None and "BatchNormalization" in kinds(made) and not tiled(made)


def test_layers_follow_one_another(tmp_path: Path):
    def again(model: onnx.ModelProto) -> None:
        weight = np.random.default_rng(9).standard_normal((32, 16, 4, 4), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "second"))
        node = helper.make_node("ConvTranspose", ["relu", "second"], ["y"], **USUAL)
        model.graph.node[1].output[0] = "relu"
        model.graph.node.append(node)

    path = changed(layer(tmp_path, **USUAL), again)
    made = rewritten(path)

    assert made is not None and "ConvTranspose" not in kinds(made)
    assert np.allclose(run(made, rows(3, 16, (4, 6))), run(path, rows(3, 16, (4, 6))), rtol=1e-3, atol=1e-3)


def test_single_pixels_are_spread_by_a_matrix_product(tmp_path: Path):
    path = layer(tmp_path, (100, 24, 4, 4), (1, 1))

    made = rewritten(path)

    assert made is not None and kinds(made) == ["Flatten", "Gemm", "Relu", "Reshape"]
    assert np.allclose(run(made, rows(3, 100, (1, 1))), run(path, rows(3, 100, (1, 1))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight", [(128, 64, 4, 4), (64, 16, 4, 4)])
@pytest.mark.parametrize("side", [(8, 8), (7, 7), (9, 10), (1, 1)])
def test_a_row_has_the_same_bits_in_any_batch(
    tmp_path: Path, weight: tuple[int, int, int, int], side: tuple[int, int]
):
    made = rewritten(layer(tmp_path, weight, side, **(USUAL if side != (1, 1) else {})))
    assert made is not None
    x = rows(33, weight[0], side)

    whole = run(made, x)

    for size in range(1, 33):
        assert run(made, x[33 - size :]).tobytes() == whole[33 - size :].tobytes()


@pytest.mark.parametrize(
    "other",
    [
        {"weight": (16, 24, 4, 4)},
        {"weight": (20, 16, 4, 4)},
        {"weight": (32, 16, 4, 4), "group": 2},
        {"dilations": [2, 2]},
        {"strides": [2, 2], "pads": [0] * 4},
        {"strides": [2, 2], "pads": [0] * 4, "weight": (16, 16, 2, 2)},
        {"strides": [3, 3], "pads": [0] * 4, "weight": (16, 16, 2, 2), "output_padding": [1, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [8, 12]},
        {"sizes": False},
    ],
    ids=str,
)
def test_a_layer_that_would_not_gain_or_is_another_one_is_left_alone(tmp_path: Path, other: dict[str, Any]):
    assert rewritten(layer(tmp_path, **(other if "strides" in other else USUAL | other))) is None


def test_a_weight_that_can_be_given_in_each_run_is_left_alone(tmp_path: Path):
    def offer(model: onnx.ModelProto) -> None:
        shape = [16, 32, 4, 4]
        model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, shape))

    assert rewritten(changed(layer(tmp_path, **USUAL), offer)) is None


def test_weights_in_a_file_of_their_own_are_left_there(tmp_path: Path):
    path = layer(tmp_path, **USUAL)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)

    assert rewritten(path) is None


def test_a_graph_with_branches_is_left_alone(tmp_path: Path):
    def branch(model: onnx.ModelProto) -> None:
        inside = helper.make_graph(
            [helper.make_node("Identity", ["spread"], ["same"])],
            "inside",
            [],
            [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(
            helper.make_node("If", ["yes"], ["z"], then_branch=inside, else_branch=inside)
        )

    assert rewritten(changed(layer(tmp_path, **USUAL), branch)) is None


def test_what_is_read_twice_or_is_an_output_is_still_there(tmp_path: Path):
    def show(model: onnx.ModelProto) -> None:
        model.graph.output.append(helper.make_tensor_value_info("spread", TensorProto.FLOAT, None))

    path = changed(layer(tmp_path, **USUAL), show)
    made = rewritten(path)
    assert made is not None
    x = rows(2, 16, (4, 6))

    for name in ("spread", "y"):
        assert np.allclose(run(made, x, name), run(path, x, name), rtol=1e-4, atol=1e-4)


def test_an_activation_of_somebody_else_is_another_one(tmp_path: Path):
    """A function of the model's own, of the same name."""

    def own(model: onnx.ModelProto) -> None:
        model.graph.node[1].domain = "mine"
        body = [helper.make_node("Neg", ["a"], ["b"])]
        opsets = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("mine", "Relu", ["a"], ["b"], body, opsets))
        model.opset_import.append(helper.make_opsetid("mine", 1))

    path = changed(layer(tmp_path, **USUAL), own)
    made = rewritten(path)

    assert made is not None
    x = rows(2, 16, (4, 6))
    assert np.allclose(run(made, x), run(path, x), rtol=1e-4, atol=1e-4)


def test_sizes_of_before_the_input_was_changed_are_not_believed(tmp_path: Path):
    def widen(model: onnx.ModelProto) -> None:
        [x] = model.graph.input
        x.CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16, "H", "W"]))
        model.graph.node.insert(0, helper.make_node("Identity", ["x"], ["same"]))
        model.graph.node[1].input[0] = "same"
        model.graph.value_info.append(
            helper.make_tensor_value_info("same", TensorProto.FLOAT, ["N", 16, 4, 4])
        )

    assert rewritten(changed(layer(tmp_path, **USUAL), widen)) is None


@pytest.mark.parametrize("side", [(4, 6), (1, 1)])
def test_no_rows_are_no_rows(tmp_path: Path, side: tuple[int, int]):
    made = rewritten(layer(tmp_path, side=side, **(USUAL if side != (1, 1) else {})))

    assert made is not None and run(made, rows(0, 16, side)).shape[:2] == (0, 32)


def test_no_rows_are_no_pictures():
    model = Model.open(MNIST)
    width = int(model.manifest.inputs[0].shape[1])
    empty = {"z": np.zeros((0, width), np.float32), "label": np.zeros(0, np.int64)}

    images = Session.open(model, SessionOptions(device="cpu")).run(empty)["image"]

    assert images.shape == (0, 28, 28, 1) and images.dtype == np.uint8


def test_what_may_be_given_can_still_be_left_out(tmp_path: Path):
    def offer(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("spare", TensorProto.FLOAT, [1]))
        model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "spare"))

    made = rewritten(changed(layer(tmp_path, **USUAL), offer))

    assert made is not None and run(made, rows(2, 16, (4, 6))).shape == (2, 32, 8, 12)


def test_weights_that_nobody_reads_any_more_are_gone(tmp_path: Path):
    made = rewritten(layer(tmp_path, **USUAL))

    assert made is not None
    assert "weight" not in [value.name for value in onnx.load_model_from_string(made).graph.initializer]


def test_other_processors_and_other_graphs_need_no_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = layer(tmp_path, **USUAL)
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_bytes(b"no such layer")
    (tmp_path / "rubbish").write_bytes(b"ConvTranspose")

    assert rewritten(tmp_path / "empty") is None and rewritten(tmp_path / "other") is None
    with pytest.raises(DecodeError):
        rewritten(tmp_path / "rubbish")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert rewritten(path) is None


def served(graph: Path, output: str = "y") -> Model:
    """A model folder with the usual layer."""
    folder = graph.parent / "served"
    folder.mkdir()
    graph.rename(folder / GRAPH)
    manifest = Manifest(
        name="served",
        plugin="image",
        files={GRAPH: sha256_of(folder / GRAPH)},
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 16, 4, 6)),),
        outputs=(TensorSpec(name=output, dtype="float32", shape=("batch", 32, 8, 12)),),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return Model.open(folder)


def test_one_that_falls_back_to_the_cpu_computes_the_bits_of_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = served(layer(tmp_path, **USUAL))
    x = {"x": rows(5, 16, (4, 6))}
    anew, as_it_is = (
        Session.open(model, SessionOptions(device="cpu", plain_convolutions=chosen)).run(x)["y"].tobytes()
        for chosen in (True, False)
    )

    monkeypatch.setattr("brigantine.session.cuda_at_hand", lambda: True)
    monkeypatch.setattr("brigantine.opening.gpu_providers", lambda *_: ["DmlExecutionProvider"])
    with pytest.warns(UserWarning, match="DmlExecutionProvider"):  # no build for this system has it
        fallen = Session.open(model)

    assert fallen.fell_back and fallen.device == "cpu"
    assert fallen.run(x)["y"].tobytes() == anew != as_it_is


def test_a_graph_that_cannot_be_written_anew_runs_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One that has a name already which the new one would have."""

    def clash(model: onnx.ModelProto) -> None:
        model.graph.node[1].output[0] = "upsampling_0"
        model.graph.output[0].name = "upsampling_0"

    model = served(changed(layer(tmp_path, **USUAL), clash), "upsampling_0")

    session = Session.open(model, SessionOptions(device="cpu"))

    assert session.run({"x": rows(2, 16, (4, 6))})["upsampling_0"].shape == (2, 32, 8, 12)
    assert "runs as it is, it cannot be written anew" in caplog.text


def test_the_shipped_model_draws_what_its_file_says_in_other_bits():
    """One process runs it as it is, and one does not: a setting, not chance."""
    model = Model.open(MNIST)
    rng = np.random.default_rng(0)
    batch = {
        "z": rng.standard_normal((200, int(model.manifest.inputs[0].shape[1])), dtype=np.float32),
        "label": rng.integers(10, size=200),
    }

    anew, as_it_is = (
        Session.open(model, SessionOptions(plain_convolutions=chosen)).run(batch)["image"].astype(int)
        for chosen in (True, False)
    )

    made = rewritten(model.path / GRAPH)
    assert made is not None and tiled(made) and "BatchNormalization" not in kinds(made)
    assert np.abs(anew - as_it_is).max() <= 1
    assert (anew != as_it_is).mean() < 1e-3


def test_a_picture_of_the_shipped_model_has_the_same_bytes_in_any_batch():
    model = Model.open(MNIST)
    session = Session.open(model, SessionOptions(device="cpu"))
    rng = np.random.default_rng(1)
    z = rng.standard_normal((33, int(model.manifest.inputs[0].shape[1])), dtype=np.float32)
    label = rng.integers(10, size=33)

    whole = session.run({"z": z, "label": label})["image"]

    for size in range(1, 33):
        for part in (slice(0, size), slice(33 - size, 33)):
            alone = session.run({"z": z[part], "label": label[part]})["image"]
            assert alone.tobytes() == whole[part].tobytes()
