"""Small deep upsampling layers are made in tiles, and compute what they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from brigantine.upsampling import rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.layers import USUAL, X86, drawn, layer, rows, run, tiled

pytestmark = X86


@settings(max_examples=60, deadline=None)
@given(
    kernels=st.tuples(st.sampled_from([4, 8]), st.sampled_from([4, 8])),
    side=st.tuples(st.sampled_from([7, 9, 10, 11, 13]), st.sampled_from([7, 9, 10])),
    bias=st.booleans(),
    after=st.sampled_from(["Relu", "LeakyRelu", "Tanh"]),
)
def test_small_deep_layers_are_made_in_tiles(
    tmp_path_factory: pytest.TempPathFactory,
    kernels: tuple[int, int],
    side: tuple[int, int],
    bias: bool,
    after: str,
):
    strides = [size // 2 for size in kernels]
    pads = [size // 4 for size in kernels] * 2
    weight = (128, 16, *kernels)
    path = layer(tmp_path_factory.mktemp("layer"), weight, side, bias, after, strides=strides, pads=pads)
    x = rows(3, 128, side)

    made = rewritten(path)

    assert tiled(made) == (side[0] * side[1] <= 100)
    assert np.allclose(run(made or b"", x), run(path, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("weight", "side", "pads"),
    [
        ((128, 64, 4, 4), (4, 7), [1, 1, 1, 1]),
        ((128, 64, 4, 4), (7, 8), [1, 1, 1, 1]),
        ((128, 64, 4, 4), (7, 7), [0, 1, 2, 1]),
        ((128, 64, 4, 4), (13, 13), [1, 1, 1, 1]),
        ((112, 64, 4, 4), (7, 7), [1, 1, 1, 1]),
        ((128, 96, 4, 4), (7, 7), [1, 1, 1, 1]),
        ((128, 64, 6, 6), (7, 7), [2, 2, 2, 2]),
    ],
)
def test_layers_that_tiles_do_not_fit_or_would_slow_down_are_not(
    tmp_path: Path, weight: tuple[int, int, int, int], side: tuple[int, int], pads: list[int]
):
    path = layer(tmp_path, weight, side, strides=[2, 2], pads=pads)
    x = rows(2, weight[0], side)

    made = rewritten(path)

    assert made is not None and not tiled(made)
    assert np.allclose(run(made, x), run(path, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("made", "shown", "channels"), [(1, False, 16), (2, False, 32), (3, False, 64), (1, True, 64)]
)
def test_what_few_channels_are_made_of_is_woven_as_few(tmp_path: Path, made: int, shown: bool, channels: int):
    path = drawn(layer(tmp_path, (128, 64, 4, 4), (7, 7), **USUAL), made, shown)
    x = rows(3, 128, (7, 7))

    graph = rewritten(path)

    assert graph is not None and tiled(graph)
    model = onnx.load_model_from_string(graph)
    [last] = [node for node in model.graph.node if node.op_type == "ConvTranspose"]
    [weight] = [value for value in model.graph.initializer if value.name == last.input[1]]
    assert list(weight.dims) == [channels, made, 4, 4]
    assert np.allclose(run(graph, x), run(path, x), rtol=1e-4, atol=1e-3)
    if shown:
        assert np.allclose(run(graph, x, "relu"), run(path, x, "relu"), rtol=1e-4, atol=1e-4)
