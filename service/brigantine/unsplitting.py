"""Unsplitting: a product that is split into parts becomes as many products.

Copying the parts out of one takes a CPU longer than beginning another product, such as the gate and the values of a
small language model, which are often made by one. A GPU has it the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .rewriting import Tensors, attributes

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["unsplit"]


def unsplit(graph: GraphProto) -> bool:
    """Multiply by each part of a weight apart, where the product is only split evenly into these, in place.

    The same function. Whether there was such a product; what is not needed any more is left in it, and read by nobody.
    """
    tensors = Tensors(graph)
    nodes = [made for node in graph.node for made in _unsplit_one(node, tensors) or [node]]
    if len(nodes) == len(graph.node):
        return False
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return True


def _unsplit_one(split: NodeProto, tensors: Tensors) -> list[NodeProto]:
    """The products in place of a split, where its parts can be made so."""
    import onnx  # noqa: PLC0415

    product = tensors.made_by.get(split.input[0]) if split.op_type == "Split" else None
    if product is None or product.op_type != "MatMul" or not tensors.is_read_once(product.output[0]):
        return []
    weight = tensors.weight(product.input[1])
    is_even = len(split.output) > 1 and len(split.input) == 1 and "split" not in attributes(split)
    is_last = attributes(split).get("axis") == -1
    if weight is None or weight.ndim != 2 or not (is_even and is_last) or weight.shape[1] % len(split.output):
        return []
    parts = np.split(weight, len(split.output), axis=1)
    return [
        onnx.helper.make_node("MatMul", [product.input[0], tensors.add_weight(f"part.{name}", part)], [name])
        for name, part in zip(split.output, parts, strict=True)
    ]
