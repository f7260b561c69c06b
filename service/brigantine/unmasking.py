"""Unmasking: a language model's graph that is told how long its rows are, instead of counting the ones of a mask.

GroupQueryAttention takes the index of each row's last token, and the number of tokens that there is room for. A graph
makes both of `attention_mask` by half a dozen small nodes, which in a small model take a twentieth of a step. Who keeps
the cache knows both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .rewriting import read

if TYPE_CHECKING:
    from onnx import GraphProto

__all__ = ["LAST", "MASK", "ROOM", "told", "unmask"]

MASK = "attention_mask"
"""int64 [N, tokens], 1 for each token that is there."""
LAST, ROOM = "seqlens_k", "total_sequence_length"
"""What is told instead, under the operator's own names: int32 [N] and int32 []."""

_OPERATOR = "GroupQueryAttention"
_LAST, _ROOM = 5, 6
"""Which inputs of it these are."""
_MADE_OF_A_MASK = {
    (
        "Cast(Sub(ReduceSum(attention_mask,[1],keepdims=0),[1]),to=6)",
        "Cast(Squeeze(Shape(attention_mask,end=2,start=1)),to=6)",
    )
}
"""How the trainer's graphs make both; 6 is int32."""
_DEPTH = 3
"""Nodes on the way from the mask."""


def told(mask: NDArray[Any]) -> dict[str, NDArray[np.int32]]:
    """What the nodes that are left out make of a mask, by the names of what is told instead."""
    return {LAST: mask.sum(axis=1, dtype=np.int32) - np.int32(1), ROOM: np.asarray(mask.shape[1], np.int32)}


def unmask(graph: GraphProto) -> bool:
    """Let a graph take `LAST` and `ROOM` instead of `MASK`, in place: the same function, to the bit.

    Whether it does; one stays as it is that has no GroupQueryAttention, or whose mask is read in another way or by
    others. What made both of a mask is left in it, and read by nobody.
    """
    import onnx  # noqa: PLC0415

    attending = [node for node in graph.node if node.op_type == _OPERATOR]
    spelling = _Spelling(graph)
    made = {(spelling.of(node.input[_LAST]), spelling.of(node.input[_ROOM])) for node in attending}
    masks = [value for value in graph.input if value.name == MASK]
    if made != _MADE_OF_A_MASK or not masks:
        return False
    before = [(node.input[_LAST], node.input[_ROOM]) for node in attending]
    for node in attending:
        node.input[_LAST], node.input[_ROOM] = LAST, ROOM
    if MASK in read(graph):
        for node, (last, room) in zip(attending, before, strict=True):
            node.input[_LAST], node.input[_ROOM] = last, room
        return False
    graph.input.remove(masks[0])
    for name, shape in ((LAST, [None]), (ROOM, [])):
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT32, shape))
    return True


class _Spelling:
    """Tensors of a graph by how they are made, such as `Sub(x,[1])`."""

    def __init__(self, graph: GraphProto) -> None:
        import onnx  # noqa: PLC0415

        self._value = onnx.helper.get_attribute_value
        self._made_by = {name: node for node in graph.node for name in node.output}
        self._constants = {
            weight.name: str(onnx.numpy_helper.to_array(weight).tolist())
            for weight in graph.initializer
            if list(weight.dims) == [1]
        }

    def of(self, name: str, depth: int = _DEPTH) -> str:
        """How a tensor is made, by so many nodes one behind the other; before these are names."""
        node = self._made_by.get(name)
        if node is None or depth == 0:
            return self._constants.get(name, name)
        inputs = [self.of(one, depth - 1) for one in node.input]
        attributes = sorted(f"{item.name}={self._value(item)}" for item in node.attribute)
        return f"{node.op_type}({','.join([*inputs, *attributes])})"
