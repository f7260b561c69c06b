"""A normalisation by fixed numbers becomes part of the product before it, and no other does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brigantine.upsampling import rewritten
from onnx import TensorProto, helper, numpy_helper

from tests.service.layers import USUAL, X86, changed, kinds, layer, projected, rows, run

pytestmark = X86


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_normalisation_becomes_part_of_the_product_before_it(tmp_path: Path, transposed: bool, bias: bool):
    path = projected(layer(tmp_path, **USUAL), transposed, bias)
    x = rows(3, 10, (1, 1))

    made = rewritten(path)

    assert made is not None and "BatchNormalization" not in kinds(made)
    assert np.allclose(run(made, x), run(path, x), rtol=1e-3, atol=1e-3)
    assert "matrix" not in [value.name for value in onnx.load_model_from_string(made).graph.initializer]


def given_mean(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [16]))


def shown_line(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("line", TensorProto.FLOAT, None))


def other_bias(model: onnx.ModelProto) -> None:
    [bias] = [value for value in model.graph.initializer if value.name == "added"]
    bias.CopyFrom(numpy_helper.from_array(np.ones((1, 1), np.float32), "added"))


def other_order(model: onnx.ModelProto) -> None:
    """A row is several pictures."""
    [shape] = [value for value in model.graph.initializer if value.name == "shape"]
    shape.CopyFrom(numpy_helper.from_array(np.array([-1, 16, 2, 6]), "shape"))


@pytest.mark.parametrize("other", [given_mean, shown_line, other_bias, other_order])
def test_a_normalisation_that_is_another_one_is_left_alone(tmp_path: Path, other: Any):
    path = changed(projected(layer(tmp_path, **USUAL)), other)
    x = rows(3, 10, (1, 1))

    made = rewritten(path)

    assert made is not None and "BatchNormalization" in kinds(made)
    assert np.allclose(run(made, x), run(path, x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scaled", [{"alpha": 0.5}, {"beta": 2.0}])
def test_a_product_that_is_scaled_keeps_its_normalisation(tmp_path: Path, scaled: dict[str, Any]):
    made = rewritten(projected(layer(tmp_path, **USUAL), **scaled))

    assert made is not None and "BatchNormalization" in kinds(made)
