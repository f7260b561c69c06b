"""Models to test with: folders with a graph of some nodes, in a moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model import GRAPH, MANIFEST, Label, Manifest, TensorSpec, sha256_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["model_folder", "tiny_image", "tiny_onnx"]

_Z_DIM = 4
_OPSET, _IR = 20, 10  # what onnxruntime 1.20, the oldest that serves, can read


def tiny_image(
    folder: Path,
    name: str = "tiny",
    *,
    plugin: str = "image",
    size: int = 8,
    channels: int = 3,
    labels: Sequence[str] = ("zero", "one", "two"),
) -> Path:
    """A model folder called `name` below `folder`, for a plugin that draws: a latent and a label in, pixels out.

    Its inputs are `z` float32 [batch, 4] and, where there are labels, `label` int64 [batch]; its output is `image`
    uint8 [batch, size, size, channels].
    """
    latent = TensorSpec(name="z", dtype="float32", shape=("batch", _Z_DIM))
    label = TensorSpec(name="label", dtype="int64", shape=("batch",))
    pixels = TensorSpec(name="image", dtype="uint8", shape=("batch", size, size, channels))
    return tiny_onnx(folder, name, plugin, [latent, label] if labels else [latent], [pixels], labels)


def tiny_onnx(
    folder: Path,
    name: str,
    plugin: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    labels: Sequence[str] = (),
) -> Path:
    """A model folder called `name` below `folder`, with the tensors that a plugin needs.

    Each output depends on every input, and in no way that means anything: fractions of a weighted sum, stretched to
    0 to 255 for whole numbers (0 to 100 for int8) and to -1 to 1 for others.

    Args:
        folder: where to put it.
        name: a slug.
        plugin: the name of the plugin that serves it.
        inputs: with a shape that is fixed but for the first dimension, the batch.
        outputs: likewise.
        labels: the names of its classes.
    """
    import onnx  # noqa: PLC0415 - slow to import

    constants: dict[str, Any] = {"flat": np.array([-1, 1], np.int64)}
    nodes = [node for spec in inputs for node in _flattened(onnx, spec, constants)]
    flat = [f"{spec.name}.flat" for spec in inputs]
    nodes.append(onnx.helper.make_node("Concat", flat, ["all"], axis=1))
    width = sum(_width(spec) for spec in inputs)
    rng = np.random.default_rng(0)
    for spec in outputs:
        constants[f"{spec.name}.weights"] = rng.standard_normal((width, _width(spec))).astype(np.float32)
        nodes += _made(onnx, spec, constants)
    graph = onnx.helper.make_graph(
        nodes,
        name,
        [_value_info(onnx, spec) for spec in inputs],
        [_value_info(onnx, spec) for spec in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", _OPSET)]
    return model_folder(
        folder, name, plugin, onnx.helper.make_model(graph, opset_imports=opset, ir_version=_IR), labels
    )


def model_folder(folder: Path, name: str, plugin: str, graph: ModelProto, labels: Sequence[str] = ()) -> Path:
    """Write a model folder called `name` below `folder`, with a graph of your own, and return its path.

    The tensors in the manifest are those of the graph.

    Raises:
        ImportError: onnx is not installed.
        onnx.checker.ValidationError: the graph is none.
        pydantic.ValidationError: the name, or the type of a tensor, is not what a manifest may have.
    """
    import onnx  # noqa: PLC0415 - slow to import

    onnx.checker.check_model(graph)  # pyright: ignore[reportUnknownMemberType]
    path = Path(folder) / name
    path.mkdir(parents=True)
    onnx.save(graph, str(path / GRAPH))  # pyright: ignore[reportUnknownMemberType]
    constants = {one.name for one in graph.graph.initializer}
    manifest = Manifest(
        name=name,
        plugin=plugin,
        files={GRAPH: sha256_of(path / GRAPH)},
        inputs=tuple(_spec(onnx, one) for one in graph.graph.input if one.name not in constants),
        outputs=tuple(_spec(onnx, one) for one in graph.graph.output),
        labels=tuple(Label(name=label, aliases=(str(index),)) for index, label in enumerate(labels)),
    )
    (path / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    return path


def _width(spec: TensorSpec) -> int:
    """The numbers in one row."""
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(sizes) != len(spec.shape) - 1:
        raise ValueError(
            f"{spec.name}: expected a shape that is fixed but for the batch, got {list(spec.shape)}"
        )
    return math.prod(sizes)


def _flattened(onnx: ModuleType, spec: TensorSpec, constants: dict[str, Any]) -> list[Any]:
    """Nodes that make of an input `<name>.flat`, float32 [batch, width]."""
    constants[f"{spec.name}.rows"] = np.array([-1, _width(spec)], np.int64)
    return [
        onnx.helper.make_node("Cast", [spec.name], [f"{spec.name}.float"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Reshape", [f"{spec.name}.float", f"{spec.name}.rows"], [f"{spec.name}.flat"]),
    ]


def _made(onnx: ModuleType, spec: TensorSpec, constants: dict[str, Any]) -> list[Any]:
    """Nodes that make an output of `all`, float32 [batch, width of all inputs]."""

    def of(what: str) -> str:
        return f"{spec.name}.{what}"

    kind = np.dtype(spec.dtype)
    whole = np.issubdtype(kind, np.integer)
    constants[of("scale")] = np.float32((100 if spec.dtype == "int8" else 255) if whole else 2)
    constants[of("offset")] = np.float32(0 if whole else 1)
    constants[of("shape")] = np.array([-1, *spec.shape[1:]], np.int64)
    node = onnx.helper.make_node
    last = (
        node("Greater", [of("shaped"), of("offset")], [spec.name])
        if spec.dtype == "bool"
        else node("Cast", [of("shifted")], [spec.name], to=onnx.helper.np_dtype_to_tensor_dtype(kind))
    )
    return [
        node("MatMul", ["all", of("weights")], [of("sum")]),
        node("Floor", [of("sum")], [of("floor")]),
        node("Sub", [of("sum"), of("floor")], [of("part")]),
        node("Mul", [of("part"), of("scale")], [of("scaled")]),
        node("Reshape", [of("scaled"), of("shape")], [of("shaped")]),
        node("Sub", [of("shaped"), of("offset")], [of("shifted")]),
        last,
    ]


def _value_info(onnx: ModuleType, spec: TensorSpec) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return onnx.helper.make_tensor_value_info(spec.name, kind, list(spec.shape))


def _spec(onnx: ModuleType, value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec.model_validate({"name": value.name, "dtype": kind, "shape": shape})
