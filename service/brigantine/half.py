"""Half: a language model's graph in float16, for which alone CUDA has the attention that appends to a cache in place.

In float32 the attention would run on the CPU, and all that it reads and makes would cross the bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .rewriting import Tensors, graph_with, prune

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

__all__ = ["halved"]

_MOST_BYTES = 2**30
"""A larger graph is left as it is: as bytes it may have twice as many, and it stands in memory several times."""
_LOGITS = "logits"
_WAVES = ("Cos", "Sin")


def halved(path: Path) -> bytes | None:
    """The graph with its numbers in float16, but the logits and what turns positions; None where it does not lack that.

    Args:
        path: an ONNX file. One of float16, without GroupQueryAttention, larger than a gibibyte, or that `graph_with`
            leaves alone stays as it is.
    """
    model = graph_with(path, "GroupQueryAttention", _MOST_BYTES)
    if model is None:
        return None
    import onnx  # noqa: PLC0415 - only where there is a GPU

    caches = [value for value in model.graph.input if value.name.startswith("past_key_values.")]
    if not caches or any(value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT for value in caches):
        return None
    from onnxruntime.transformers import float16  # type: ignore[import-untyped]  # noqa: PLC0415 - it takes long

    waves = _Waves.take_from(model.graph)
    kept = [_LOGITS, *waves.names]
    made = cast(Any, float16).convert_float_to_float16(model, keep_io_types=kept)
    waves.put_back(made.graph)
    return made.SerializeToString()


class _Waves(NamedTuple):
    """The nodes that make cosines and sines of positions, which float16 is too coarse for: from 2,048 on it knows every
    other one.
    """

    names: list[str]
    """The cosines and sines."""
    nodes: list[NodeProto]
    weights: list[TensorProto]

    @classmethod
    def take_from(cls, graph: GraphProto) -> _Waves:
        """Make the graph take cosines and sines as inputs, in place. What else is made on the way stays in it."""
        import onnx  # noqa: PLC0415

        tensors = Tensors(graph)
        shown = {value.name for value in graph.output}
        waves = [node for node in graph.node if node.op_type in _WAVES and node.output[0] not in shown]
        of = {node.output[0]: _makers(node, tensors) for node in waves}
        names = [name for name, makers in of.items() if _are_of_positions(makers.values(), graph, tensors)]
        makers = {made: node for name in names for made, node in of[name].items()}
        given = {value.name for value in graph.input}
        read = {name for node in makers.values() for name in node.input} - given
        own = {name: f"waves.{name}" for name in read | set(tensors.made_by) if name and name not in names}
        nodes = [_named(node, own) for node in graph.node if node.output[0] in makers]
        weights = [_weight(one, own[one.name]) for one in graph.initializer if one.name in read]
        for name in names:
            graph.node.remove(makers[name])
        floats = onnx.TensorProto.FLOAT
        graph.input.extend(onnx.helper.make_tensor_value_info(name, floats, None) for name in names)
        prune(graph)
        return cls(names, nodes, weights)

    def put_back(self, graph: GraphProto) -> None:
        """Let the graph make them itself again, in place."""
        for value in [value for value in graph.input if value.name in self.names]:
            graph.input.remove(value)
        others = list(graph.node)
        del graph.node[:]
        graph.node.extend([*self.nodes, *others])
        graph.initializer.extend(self.weights)


def _makers(wave: NodeProto, tensors: Tensors) -> dict[str, NodeProto]:
    """A node and all before it, by the first tensor that each makes."""
    found = {wave.output[0]: wave}
    behind = [wave]
    while behind:
        for name in behind.pop().input:
            maker = tensors.made_by.get(name)
            if maker is not None and maker.output[0] not in found:
                found[maker.output[0]] = maker
                behind.append(maker)
    return found


def _are_of_positions(makers: Iterable[NodeProto], graph: GraphProto, tensors: Tensors) -> bool:
    """Whether these nodes begin with whole numbers, and none of them looks up what tokens stand for."""
    import onnx  # noqa: PLC0415

    whole = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    others = {value.name for value in graph.input if value.type.tensor_type.elem_type not in whole}
    return all(
        others.isdisjoint(node.input)
        and not (node.op_type == "Gather" and tensors.weight(node.input[0]) is not None)
        for node in makers
    )


def _named(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy that reads and makes tensors of other names."""
    copied = type(node)()
    copied.CopyFrom(node)
    copied.name = f"waves.{node.output[0]}"
    copied.input[:] = [names.get(name, name) for name in node.input]
    copied.output[:] = [names.get(name, name) for name in node.output]
    return copied


def _weight(weight: TensorProto, name: str) -> TensorProto:
    """A copy of this name."""
    copied = type(weight)()
    copied.CopyFrom(weight)
    copied.name = name
    return copied
