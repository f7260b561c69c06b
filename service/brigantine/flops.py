"""Flops: how much a graph computes for one row.

Counted are products and convolutions, which are nearly all of it, from the shapes that ONNX infers for a batch of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["flops"]

Shape = Sequence[int]


def flops(path: Path) -> int:
    """Multiplications and additions for one row; 0 where no shape can be told.

    Args:
        path: an ONNX file whose inputs have the batch as their first dimension.
    """
    import onnx  # noqa: PLC0415 - only where there is a GPU

    model = onnx.ModelProto.FromString(path.read_bytes())
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    shapes: dict[str, Shape] = {}
    for tensor in model.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        if tensor.data_type != onnx.TensorProto.INT64:  # what gives a shape
            tensor.ClearField("raw_data")  # or all weights would be copied
    graph = onnx.shape_inference.infer_shapes(model).graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes.setdefault(value.name, tuple(dim.dim_value for dim in dims))
    return sum(_of_node(node, shapes) for node in graph.node)


def _of_node(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """2 * what is summed for each element * elements, with the names of ONNX's operators."""
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return 0
    of, weight, made = (shapes.get(name) for name in (*node.input[:2], node.output[0]))
    if of is None or weight is None or made is None:
        return 0
    if node.op_type == "Conv":  # weight [C_out, C_in / groups, *kernel]
        return 2 * math.prod(made) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # weight [C_in, C_out / groups, *kernel]
        return 2 * math.prod(of) * math.prod(weight[1:])
    transposed = any(one.name == "transA" and one.i for one in node.attribute)
    return 2 * math.prod(made) * of[0 if transposed else -1]
