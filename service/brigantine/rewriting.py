"""Rewriting: what graphs have in common that are written anew when they are loaded."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["Tensors", "Writer", "attributes", "graph_with", "mentions", "prune", "read"]

_MOST_BYTES = 2**28
"""A larger file is left as it is: to write it anew takes some six times its size."""


def graph_with(path: Path, operator: str, most_bytes: int = _MOST_BYTES) -> ModelProto | None:
    """The graph in `path`, if it has such a node and can be written anew.

    None where it has no such node, branches, weights in other files, or more than `most_bytes`.

    Raises:
        Exception: the file cannot be read, or is no graph.
    """
    if path.stat().st_size > most_bytes or not mentions(path, operator):
        return None
    import onnx  # noqa: PLC0415 - most graphs have no such node

    proto = onnx.load_model_from_string(path.read_bytes())
    external = any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in proto.graph.initializer)
    branches = any(item.HasField("g") for node in proto.graph.node for item in node.attribute)
    return None if external or branches else proto


def mentions(path: Path, operator: str) -> bool:
    """Whether the file in `path` has this word somewhere, which costs little to find out."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(operator.encode()) >= 0


def read(graph: GraphProto) -> set[str]:
    """The tensors of which the graph's outputs are made, and these."""
    names = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if not names.isdisjoint(node.output):
            names.update(node.input)
    return names


def prune(graph: GraphProto) -> None:
    """Drop the nodes and the weights of which no output is made."""
    names = read(graph) | {value.name for value in graph.input}  # a weight may be an input's default
    for node in [node for node in graph.node if names.isdisjoint(node.output)]:
        graph.node.remove(node)
    for weight in [weight for weight in graph.initializer if weight.name not in names]:
        graph.initializer.remove(weight)


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by their names."""
    import onnx  # noqa: PLC0415

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


class Tensors:
    """What is known of a graph's tensors.

    Args:
        graph: as it is now.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.made_by = {name: node for node in graph.node for name in node.output}
        """The node that makes each; none makes inputs and weights."""
        self._graph = graph
        self._readers = Counter(name for node in graph.node for name in node.input)
        self._readers.update(value.name for value in graph.output)
        given = {value.name for value in graph.input}
        self._names = {*self._readers, *self.made_by, *given, *(weight.name for weight in graph.initializer)}
        self._weights = {weight.name: weight for weight in graph.initializer if weight.name not in given}

    def is_read_once(self, name: str) -> bool:
        """Whether one node reads it, and nobody else."""
        return self._readers[name] == 1

    def weight(self, name: str) -> NDArray[np.float32] | None:
        """The values of a weight of float32, which may be kept as float16; None where it is none."""
        import onnx  # noqa: PLC0415

        node = self.made_by.get(name)
        if node is not None:
            if node.op_type != "Cast" or attributes(node)["to"] != onnx.TensorProto.FLOAT:
                return None
            name = node.input[0]
        if name not in self._weights:
            return None
        values = onnx.numpy_helper.to_array(self._weights[name])
        is_float = values.dtype == np.float32 or (node is not None and values.dtype == np.float16)
        return values.astype(np.float32) if is_float else None

    def sizes(self, name: str) -> list[int] | None:
        """The values of a constant of int64, as a shape is one."""
        import onnx  # noqa: PLC0415

        if name not in self._weights:
            return None
        values = onnx.numpy_helper.to_array(self._weights[name])
        return [int(value) for value in values] if values.dtype == np.int64 and values.ndim == 1 else None

    def add_weight(self, name: str, values: NDArray[np.float32]) -> str:
        """A new one, named like this; gives the name that it has."""
        import onnx  # noqa: PLC0415

        while name in self._names:
            name += "_"
        self._names.add(name)
        self._graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


class Writer:
    """Writes nodes and constants of a graph.

    Args:
        graph: the constants become its own at once.
        name: what theirs begin with.
    """

    def __init__(self, graph: GraphProto, name: str) -> None:
        import onnx  # noqa: PLC0415

        self._helper, self._arrays = onnx.helper, onnx.numpy_helper
        self._graph, self._name = graph, name
        self.nodes: list[NodeProto] = []
        """In the order in which they run; of others, too."""

    def constant(self, values: NDArray[Any]) -> str:
        name = f"{self._name}_constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(self._arrays.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A node with one output; its name."""
        output = output or f"{self._name}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, inputs, [output], **attributes))
        return output

    def shaped(self, name: str, *sizes: int, output: str = "") -> str:
        """The same values, of these sizes: 0 is what it was."""
        return self.add("Reshape", [name, self.constant(np.array(sizes))], output)
