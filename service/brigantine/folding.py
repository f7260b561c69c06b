"""Folding: normalisations by fixed numbers, which the weights before them can bring along."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .rewriting import Tensors, attributes

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["fold"]


def fold(graph: GraphProto) -> None:
    """Let Gemm -> Reshape -> BatchNormalization be Gemm -> Reshape, where nobody else reads what is between them.

    ONNX Runtime does so for convolutions, but not here. Weights that nobody reads any more are still there.
    """
    tensors = Tensors(graph)
    for node in list(graph.node):
        if node.op_type == "BatchNormalization" and not node.domain and _folded(node, tensors):
            graph.node.remove(node)


def _folded(node: NodeProto, tensors: Tensors) -> bool:
    """Whether the nodes before it do its work now."""
    reshape = _before(node, "Reshape", tensors)
    gemm = reshape and _before(reshape, "Gemm", tensors)
    if not reshape or not gemm or len(reshape.input) < 2:  # as before opset 5
        return False
    sizes = tensors.sizes(reshape.input[1]) or []
    numbers = _numbers(node, tensors, sizes[1:2])
    affine = _affine(gemm, tensors)
    if numbers is None or affine is None or math.prod(sizes[1:]) != len(affine[1]) or min(sizes[1:]) < 1:
        return False
    factor, shift = (np.repeat(values, math.prod(sizes[2:])) for values in numbers)
    weight, bias = affine[0] * factor, affine[1] * factor + shift
    weight = np.transpose(weight) if attributes(gemm).get("transB", 0) else weight
    made = {"weight": weight, "bias": bias}
    names = [
        tensors.add_weight(f"{node.output[0]}_{kind}", values.astype(np.float32))
        for kind, values in made.items()
    ]
    gemm.input[:] = [gemm.input[0], *names]
    reshape.output[0] = node.output[0]
    return True


def _numbers(
    node: NodeProto, tensors: Tensors, shape: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """By what a normalisation multiplies each channel and what it adds, if that is the same each time."""
    found = [tensors.weight(name) for name in node.input[1:]]
    values = [
        value.astype(np.float64) for value in found if value is not None and value.shape == tuple(shape)
    ]
    has: dict[str, Any] = attributes(node)
    if len(values) < 4 or len(node.output) > 1 or has.get("training_mode", 0):
        return None
    scale, shift, mean, variance = values
    factor = scale / np.sqrt(variance + has.get("epsilon", 1e-5))
    return factor, shift - mean * factor


def _affine(gemm: NodeProto, tensors: Tensors) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The weight [read, made] and the bias [made], if they are constant and count once."""
    has: dict[str, Any] = attributes(gemm)
    constants = [tensors.weight(name) for name in gemm.input[1:]]
    values = [np.asarray(value, np.float64) for value in constants if value is not None]
    if len(values) < len(constants) or has.get("alpha", 1.0) != 1 or has.get("beta", 1.0) != 1:
        return None
    weight = np.transpose(values[0]) if has.get("transB", 0) else values[0]
    count = weight.shape[1]
    bias = values[1] if values[1:] else np.zeros(count)
    return (weight, bias) if bias.shape == (count,) else None


def _before(node: NodeProto, kind: str, tensors: Tensors) -> NodeProto | None:
    """What makes the node's first input, if it is of this kind and makes it for nobody else."""
    name = node.input[0]
    before = tensors.made_by.get(name)
    fits = before is not None and before.op_type == kind and not before.domain and tensors.is_read_once(name)
    return before if fits else None
