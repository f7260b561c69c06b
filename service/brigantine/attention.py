"""Attention: a language model's graph, written anew for how a CPU attends.

ONNX Runtime has a kernel that multiplies one row by a matrix as it lies, but none that scales the product as well: for
that it copies the matrix into another order first, here all keys of a sequence for each of its tokens. So the scale of
GroupQueryAttention goes into the weights that make the queries. Its attention in blocks does not use that kernel
either, so that such a graph is to attend without (`blocks`). A token then attends in some 0.6 to 0.9 of the time, or
as long as before where nearly all of it is waiting for a large cache (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .rewriting import Tensors, attributes, graph_with, mentions, prune
from .unmasking import unmask
from .unsplitting import unsplit

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["Attentive", "attends", "attentive"]

_OPERATOR = "GroupQueryAttention"
_QUERY, _KEY, _FURTHER = 0, 1, 10
"""Which inputs of it these are; what comes after the last is not handled here, such as a bias."""
_LARGEST = 64
"""Numbers in a head up to which it pays: with larger ones keys that are not at hand take longer than in blocks."""


class Attentive(NamedTuple):
    """A graph that was written anew."""

    graph: bytes
    in_blocks: bool
    """Whether it is faster in blocks, since not all of its queries are scaled by their weights."""


def attends(path: Path) -> bool:
    """Whether the graph in `path` has attention that can be computed in blocks."""
    return mentions(path, _OPERATOR)


def attentive(path: Path) -> Attentive | None:
    """The graph in `path` unmasked, unsplit, and with its queries scaled by their weights.

    The same function: to the bit where the scale is a power of two, as with heads of 16 or 64 numbers, else up to the
    rounding of these weights. None where nothing can be done, or `graph_with` leaves it alone.

    Raises:
        Exception: see `graph_with`.
    """
    proto = graph_with(path, _OPERATOR)
    if proto is None:
        return None
    is_unmasked, is_unsplit = unmask(proto.graph), unsplit(proto.graph)
    attending = [node for node in proto.graph.node if node.op_type == _OPERATOR]
    scaled = _scale(proto.graph, attending)
    if not (is_unmasked or is_unsplit or scaled):
        return None
    prune(proto.graph)
    return Attentive(proto.SerializeToString(), scaled < len(attending))


def _scale(graph: GraphProto, attending: list[NodeProto]) -> int:
    """Scale the queries of each attention by the weights that make them, in place; of how many it could be done."""
    if platform.machine() not in ("x86_64", "AMD64"):  # others have no such kernel
        return 0
    tensors = Tensors(graph)
    return sum(_scale_one(node, tensors) for node in attending)


def _scale_one(node: NodeProto, tensors: Tensors) -> bool:
    import onnx  # noqa: PLC0415

    makers = _makers(node.input[_QUERY], tensors)
    if not makers or any(node.input[_FURTHER:]):
        return False
    has = attributes(node)
    heads, groups = int(has["num_heads"]), int(has["kv_num_heads"])
    is_packed = not node.input[_KEY]
    size = makers[0].values.shape[-1] // (heads + 2 * groups if is_packed else heads)
    if size > _LARGEST:
        return False
    scale = has.get("scale") or 1 / math.sqrt(size)
    for maker in makers:
        maker.values[..., : heads * size] *= np.float32(scale)
        maker.node.input[maker.place] = tensors.add_weight(f"scaled.{maker.node.output[0]}", maker.values)
    for item in [item for item in node.attribute if item.name == "scale"]:
        node.attribute.remove(item)
    node.attribute.append(onnx.helper.make_attribute("scale", 1.0))
    return True


class _Maker(NamedTuple):
    """A weight that a node multiplies by, or adds."""

    node: NodeProto
    place: int
    """Which of its inputs it is."""
    values: NDArray[np.float32]
    """[..., width]"""


def _makers(name: str, tensors: Tensors) -> list[_Maker]:
    """The weights that a tensor is linear in: of a product, and of what is added to it. None where others read it."""
    node = tensors.made_by.get(name)
    if node is None or not tensors.is_read_once(name) or node.op_type not in ("MatMul", "Add"):
        return []
    weights = [(index, tensors.weight(one)) for index, one in enumerate(node.input)]
    found = [_Maker(node, index, values) for index, values in weights if values is not None]
    if len(found) != 1:
        return []
    if node.op_type == "MatMul":
        return found if found[0].place == 1 else []
    product = _makers(node.input[1 - found[0].place], tensors)
    return [*product, *found] if product and _widths(product) == _widths(found) else []


def _widths(makers: list[_Maker]) -> set[int]:
    return {maker.values.shape[-1] for maker in makers}
