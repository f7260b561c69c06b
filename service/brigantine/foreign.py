"""A foreign graph: an ONNX file that others exported, read without trusting it.

Sizes, places and operators are checked before anything is read or run. What it takes and gives is found out, or asked
for. `adopt` makes a model of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from .errors import ModelInvalid

__all__ = [
    "NUMBERS",
    "RANGES",
    "Choices",
    "Ports",
    "Tensor",
    "ports_of",
    "read",
    "read_beside",
    "walk",
]

_LARGEST = 2**31 - 2**20  # what protobuf can write, 2 GiB, less 1 MiB for the nodes that are added
_FIRST_BYTES = b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72"  # tags of ModelProto's fields, the first nearly always
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_DTYPES = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}  # of TensorProto
NUMBERS = {name: number for number, name in _DTYPES.items()}
"""ONNX's number of each type."""
RANGES = {"-1..1": (-1, 1), "0..1": (0, 1), "0..255": (0, 255)}
"""The values of black and of white."""
_LAST_OPS = {"Tanh": "-1..1", "Sigmoid": "0..1"}
_MOVES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_FLOATS = ("float32", "float16", "float64")


class Tensor(NamedTuple):
    """An input or output of the foreign graph."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @classmethod
    def of(cls, info: Any) -> Tensor:
        tensor = info.type.tensor_type
        sizes = (d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
        return cls(info.name, _DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}"), tuple(sizes))

    @property
    def width(self) -> int:
        """K of floats [N, K] or [N, K, 1, 1]: a latent, or a class as one-hot. 0 of any other tensor."""
        size = self.shape[1] if len(self.shape) > 1 and set(self.shape[2:]) <= {1} else 0
        return size if isinstance(size, int) and self.dtype in _FLOATS else 0

    def __str__(self) -> str:
        return f"{self.name!r} {self.dtype} [{', '.join(map(str, self.shape))}]"


class Choices(NamedTuple):
    """What a graph may not tell: the options of `brigantine models import`, empty where none was given."""

    name: str = ""
    labels: tuple[str, ...] = ()
    classes: int | None = None
    value_range: str = ""
    description: str = ""
    latent_input: str = ""
    class_input: str = ""
    output: str = ""


class Ports(NamedTuple):
    """What goes into a graph and comes out of it."""

    latent: Tensor
    kind: Tensor | None
    """The class, where there is one."""
    labels: tuple[str, ...]
    drawn: Tensor
    values: str
    """The range of what is drawn, a key of `RANGES`; empty where it is bytes."""

    def __str__(self) -> str:
        kind = f"the class {self.kind}, {len(self.labels)} labels" if self.kind else "no class"
        return f"the latent {self.latent}, {self.latent.width} numbers; {kind}; the output {self.drawn}"


def read(path: Path) -> Any:
    """The graph in the file at `path`, a ModelProto with all its weights in it.

    Raises:
        ModelInvalid: it is no graph, too large, or unsafe.
    """
    proto = _read(path)
    _fold(path, proto)
    _check_ops(path, proto)
    return proto


def read_beside(path: Path) -> tuple[Any, list[str]]:
    """The graph in the file at `path`, and the names of the files beside it that its weights lie in and stay in.

    Raises:
        ModelInvalid: it is no graph, too large, or unsafe.
    """
    proto = _read(path)
    folder = Path(os.path.realpath(path.parent))
    places = [_place(path, tensor) for tensor in _outside(proto)]
    files = {file.relative_to(folder).as_posix() for file, _, _ in places}
    _check_ops(path, proto)
    return proto, sorted(files)


def ports_of(path: Path, graph: Any, choices: Choices) -> Ports:
    """What the graph takes and gives, as far as it tells that, and as `choices` have it.

    Raises:
        ModelInvalid: it draws no pictures of a latent, or a choice is missing or wrong.
    """
    latent, kind = _inputs(path, graph, choices)
    labels = _labels(path, kind, choices)
    drawn = _output(path, graph, choices.output)
    return Ports(latent, kind, labels, drawn, _range(path, graph, drawn, choices.value_range))


def _read(path: Path) -> Any:
    """The file as a ModelProto. Its size and its first byte are looked at before the rest is read."""
    import onnx  # noqa: PLC0415 - slow to import

    got = ""
    try:
        with path.open("rb") as file:
            size, first = path.stat().st_size, file.read(1)
            known = size <= _LARGEST and first and first in _FIRST_BYTES
            data = first + file.read(_LARGEST) if known else b""
        proto = onnx.ModelProto.FromString(data)
        if proto.opset_import and proto.graph.node and proto.graph.output:
            return proto
        got = "no opset, nodes or outputs in it" if data else f"{size} bytes that begin with {first!r}"
    except Exception as error:  # of the system, or protobuf's DecodeError
        got = str(error)
    raise ModelInvalid(
        f"{path}: expected an ONNX file, whole and at most 2 GiB, got {got}; check the path, or export it again"
    )


def walk(message: Any) -> Iterator[Any]:
    """A protobuf message and all below it, in whatever a graph, a node or a tensor may hide."""
    yield message
    if message.DESCRIPTOR.name != "TensorProto":  # a look at its fields would copy its data
        for field, value in message.ListFields():
            for part in [value] if hasattr(value, "DESCRIPTOR") else value if field.message_type else ():
                yield from walk(part)


def _fold(path: Path, proto: Any) -> None:
    """Take the weights that lie beside the file into the graph. All places are checked before one is read."""
    proto.ClearField("training_info")
    tensors = _outside(proto)
    places = [_place(path, tensor) for tensor in tensors]
    if (total := proto.ByteSize() + sum(length for _, _, length in places)) > _LARGEST:
        raise ModelInvalid(f"{path}: expected at most 2 GiB in all, got {total} bytes; export it in float16")
    for tensor, (file, offset, length) in zip(tensors, places, strict=True):
        with file.open("rb") as opened:
            opened.seek(offset)
            tensor.raw_data = opened.read(length)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")


def _outside(proto: Any) -> list[Any]:
    """The tensors whose bytes are not in the graph."""
    return [t for t in walk(proto) if t.DESCRIPTOR.name == "TensorProto" and t.data_location]


def _place(path: Path, tensor: Any) -> tuple[Path, int, int]:
    """The file, offset and length of a tensor's bytes."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    where, location = f"{path}: weights {tensor.name!r}", said.get("location", "")
    folder, parts = Path(os.path.realpath(path.parent)), PurePath(location)
    file = folder / location
    named = location and "\0" not in location and not parts.is_absolute() and ".." not in parts.parts
    if not (named and Path(os.path.realpath(file)).is_relative_to(folder)):
        raise ModelInvalid(
            f"{where}: expected a file in the folder of the graph, got {location!r}; copy it there, export its name"
        )
    there = file.stat().st_size if os.path.isfile(file) else -1
    texts = said.get("offset", "0"), said.get("length", "0")
    offset, length = (int(text) if re.fullmatch(r"\d{1,18}", text) else -1 for text in texts)
    length = length if "length" in said else there - offset
    if not 0 <= offset <= offset + length <= there:
        got = f"a file of {there} bytes" if there >= 0 else "no file of this name"
        raise ModelInvalid(
            f"{where}: expected {said} to be a part of {file}, got {got}; copy it beside the graph, or export it again"
        )
    return file, offset, length


def _check_ops(path: Path, proto: Any) -> None:
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < 11:  # the first with Round, and with the bounds of Clip as inputs
        raise ModelInvalid(
            f"{path}: expected opset 11 or later, got {opset}; export it with opset_version=17"
        )
    called = {(p.domain, p.op_type) for p in walk(proto) if p.DESCRIPTOR.name == "NodeProto"}
    called -= {(function.domain, function.name) for function in proto.functions}
    if strange := sorted(f"{domain}:{op}" for domain, op in called if domain not in _DOMAINS):
        raise ModelInvalid(f"{path}: expected ops of ONNX, got {', '.join(strange)}; export it without them")


def _inputs(path: Path, graph: Any, choices: Choices) -> tuple[Tensor, Tensor | None]:
    """The latent and, where there is one, the class."""
    constants = {tensor.name for tensor in graph.initializer}  # before IR version 4 these were inputs too
    inputs = [Tensor.of(info) for info in graph.input if info.name not in constants]
    got = "; ".join(map(str, inputs)) or "none"
    for option, name in (("latent", choices.latent_input), ("class", choices.class_input)):
        if name and name not in (tensor.name for tensor in inputs):
            raise ModelInvalid(f"--{option}-input: expected an input of {path}, got {name!r}; it has {got}")
    asked = [t for t in inputs if t.name != choices.class_input and choices.latent_input in ("", t.name)]
    latents = [tensor for tensor in asked if tensor.width]
    if len(latents) != 1:
        remedy = "give --latent-input NAME, and the other is a one-hot class"
        raise ModelInvalid(
            f"{path}: expected one latent, floats [N, Z] or [N, Z, 1, 1] with a fixed Z, got the inputs {got}; "
            f"{remedy if latents else 'export a generator that takes one'}"
        )
    others = [tensor for tensor in inputs if tensor is not latents[0]]
    classes = [
        t for t in others if t.width > 1 or (t.dtype in ("int32", "int64") and set(t.shape[1:]) <= {1})
    ]
    if len(others) > 1 or others != classes:
        raise ModelInvalid(
            f"{path}: expected a latent and perhaps a class, int64 or int32 [N] or one-hot floats [N, C], got {got}; "
            f"export it with the other inputs as constants"
        )
    return latents[0], others[0] if others else None


def _labels(path: Path, kind: Tensor | None, choices: Choices) -> tuple[str, ...]:
    wanted = choices.classes or len(choices.labels)
    if kind is None and wanted:
        raise ModelInvalid(f"--classes: expected none for {path}, got {wanted} labels; leave them out")
    if kind is None:
        return ()
    labels = choices.labels or tuple(map(str, range(wanted or kind.width)))
    if not labels:
        raise ModelInvalid(f"{path}: expected labels for {kind}, got none; give --labels a,b or --classes K")
    distinct = len({label.casefold() for label in labels if label})
    if {len(labels), distinct, wanted or distinct, kind.width or distinct} != {distinct}:
        raise ModelInvalid(
            f"--labels: expected names that differ, as many as --classes and as the input {kind} has, got "
            f"{','.join(labels)!r}; give a name for each"
        )
    return labels


def _output(path: Path, graph: Any, wanted: str) -> Tensor:
    outputs = {info.name: Tensor.of(info) for info in graph.output}
    got = "; ".join(map(str, outputs.values()))
    if (wanted and wanted not in outputs) or (not wanted and len(outputs) > 1):
        raise ModelInvalid(f"{path}: expected one output, got {wanted!r} of {got}; give --output NAME")
    output = outputs[wanted or next(iter(outputs))]
    if output.dtype not in (*_FLOATS, "uint8"):
        raise ModelInvalid(f"{path}: expected floats or uint8, got the output {output}; export the picture")
    return output


def _range(path: Path, graph: Any, drawn: Tensor, given: str) -> str:
    """The range of its values, as given or as the last operator tells; empty where bytes are drawn."""
    if drawn.dtype == "uint8" and not given:
        return ""
    producers = {output: node for node in graph.node for output in node.output}
    node = producers.pop(drawn.name, None)
    while node is not None and node.op_type in _MOVES:  # they keep the values
        node = producers.pop(node.input[0], None) if node.input else None
    last = node.op_type if node is not None and node.domain in ("", "ai.onnx") else "unknown"
    said = given or _LAST_OPS.get(last, f"the last operator {last}, which does not tell it")
    if said not in RANGES:
        raise ModelInvalid(
            f"{path}: expected a range of {drawn}, got {said}; give --range={'|'.join(RANGES)}"
        )
    return said
