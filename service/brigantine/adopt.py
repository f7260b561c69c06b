"""Adopt: an ONNX graph that others exported becomes a model that the `image` plugin serves.

The file is not trusted: sizes, places and operators are checked before anything is read or run. Then its inputs get
the names and shapes that the plugin wants, its floats become pixels inside the graph, and it is run before it is
published. What the graph cannot tell is asked for, by the option that gives it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ModelInvalid
from .model import GRAPH, MANIFEST, Arrays, Manifest, Model, sha256_of
from .registry import Registry
from .session import RuntimeMissing, Session, SessionOptions
from .settings import Settings
from .store import publish

__all__ = ["Choices", "adopt"]

_RANGES = {"-1..1": (-1, 1), "0..1": (0, 1), "0..255": (0, 255)}  # the values of black and of white
_LARGEST = 2**31 - 2**20  # what protobuf can write, 2 GiB, less 1 MiB for the nodes that are added
_FIRST_BYTES = b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72"  # tags of ModelProto's fields, the first nearly always
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_DTYPES = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}  # of TensorProto
_NUMBERS = {name: number for number, name in _DTYPES.items()}
_FLOATS = ("float32", "float16", "float64")
_LAST_OPS = {"Tanh": "-1..1", "Sigmoid": "0..1"}
_MOVES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_CHANNELS = (1, 3, 4)
_STAGED = "imported"  # until `publish`, which judges the name
_BATCHES = (1, 2, 5)
_DYNAMIC = (
    "export it again with a dynamic batch: with dynamo=True dynamic_shapes=({0: torch.export.Dim('batch')},), with "
    "dynamo=False dynamic_axes={'z': {0: 'batch'}}, and in forward() no number for the batch in view() or reshape()"
)


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


class _Tensor(NamedTuple):
    """An input or output of the foreign graph."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @classmethod
    def of(cls, info: Any) -> _Tensor:
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


def adopt(path: Path, plugin: str, choices: Choices) -> str:
    """Turn the ONNX graph at `path` into a model, try it, publish it, and return its tag, `name:version`.

    The model has the inputs `z` float32 [batch, Z] and, where the graph draws classes, `label` int64 [batch], and the
    output `image` uint8 [batch, H, W, C]. `plugin` is the one that will serve it.

    Raises:
        ModelInvalid: it is no graph, is unsafe, draws no pictures, or needs a choice that was not made.
        RuntimeMissing: onnx or ONNX Runtime is not installed.
    """
    if plugin != "image":
        raise ModelInvalid(f"--plugin: expected image, got {plugin!r}; nothing else can be imported so far")
    proto = _read(path)
    _fold(path, proto)
    _check_ops(path, proto)
    latent, kind = _inputs(path, proto.graph, choices)
    labels = _labels(path, kind, choices)
    drawn = _output(path, proto.graph, choices.output)
    span = _span(path, proto.graph, drawn, choices.value_range)
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    facts = {
        "name": _STAGED,
        "plugin": plugin,
        "description": choices.description or f"Imported from {path.name}.",
        "labels": [{"name": label} for label in labels],
        "training": {"imported_from": path.name, "sha256": sha256_of(path), "producer": producer},
    }
    _wrap_inputs(proto, latent, kind, drawn)
    with TemporaryDirectory(prefix="brigantine-import-") as aside:
        shape = _try(path, _write(proto, Path(aside) / "tried", facts), span)
        _wrap_output(path, proto.graph, span, shape)
        served = _write(proto, Path(aside) / "models" / _STAGED, facts)
        _warm_up(path, served)
        return publish(served.path, choices.name or re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-"))


def _onnx() -> Any:
    try:
        import onnx  # noqa: PLC0415 - serving needs none
    except ImportError as error:
        raise RuntimeMissing(f"onnx is missing ({error}): pip install 'brigantine[import]'") from error
    return onnx


def _read(path: Path) -> Any:
    """The file as a ModelProto. Its size and its first byte are looked at before the rest is read."""
    onnx, got = _onnx(), ""
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


def _walk(message: Any) -> Iterator[Any]:
    """A protobuf message and all below it, in whatever a graph, a node or a tensor may hide."""
    yield message
    if message.DESCRIPTOR.name != "TensorProto":  # a look at its fields would copy its data
        for field, value in message.ListFields():
            for part in [value] if hasattr(value, "DESCRIPTOR") else value if field.message_type else ():
                yield from _walk(part)


def _fold(path: Path, proto: Any) -> None:
    """Take the weights that lie beside the file into the graph. All places are checked before one is read."""
    proto.ClearField("training_info")
    tensors = [t for t in _walk(proto) if t.DESCRIPTOR.name == "TensorProto" and t.data_location]
    places = [_place(path, tensor) for tensor in tensors]
    if (total := proto.ByteSize() + sum(length for _, _, length in places)) > _LARGEST:
        raise ModelInvalid(f"{path}: expected at most 2 GiB in all, got {total} bytes; export it in float16")
    for tensor, (file, offset, length) in zip(tensors, places, strict=True):
        with file.open("rb") as opened:
            opened.seek(offset)
            tensor.raw_data = opened.read(length)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")


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
    called = {(p.domain, p.op_type) for p in _walk(proto) if p.DESCRIPTOR.name == "NodeProto"}
    called -= {(function.domain, function.name) for function in proto.functions}
    if strange := sorted(f"{domain}:{op}" for domain, op in called if domain not in _DOMAINS):
        raise ModelInvalid(f"{path}: expected ops of ONNX, got {', '.join(strange)}; export it without them")


def _inputs(path: Path, graph: Any, choices: Choices) -> tuple[_Tensor, _Tensor | None]:
    """The latent and, where there is one, the class."""
    constants = {tensor.name for tensor in graph.initializer}  # before IR version 4 these were inputs too
    inputs = [_Tensor.of(info) for info in graph.input if info.name not in constants]
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


def _labels(path: Path, kind: _Tensor | None, choices: Choices) -> tuple[str, ...]:
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


def _output(path: Path, graph: Any, wanted: str) -> _Tensor:
    outputs = {info.name: _Tensor.of(info) for info in graph.output}
    got = "; ".join(map(str, outputs.values()))
    if (wanted and wanted not in outputs) or (not wanted and len(outputs) > 1):
        raise ModelInvalid(f"{path}: expected one output, got {wanted!r} of {got}; give --output NAME")
    output = outputs[wanted or next(iter(outputs))]
    if output.dtype not in (*_FLOATS, "uint8"):
        raise ModelInvalid(f"{path}: expected floats or uint8, got the output {output}; export the picture")
    return output


def _span(path: Path, graph: Any, drawn: _Tensor, given: str) -> tuple[int, int] | None:
    """The values of black and white, as given or as the last operator tells; None where bytes are drawn."""
    if drawn.dtype == "uint8" and not given:
        return None
    producers = {output: node for node in graph.node for output in node.output}
    node = producers.pop(drawn.name, None)
    while node is not None and node.op_type in _MOVES:  # they keep the values
        node = producers.pop(node.input[0], None)
    last = node.op_type if node is not None and node.domain in ("", "ai.onnx") else "unknown"
    said = given or _LAST_OPS.get(last, f"the last operator {last}, which does not tell it")
    if said not in _RANGES:
        raise ModelInvalid(
            f"{path}: expected a range of {drawn}, got {said}; give --range={'|'.join(_RANGES)}"
        )
    return _RANGES[said]


def _wrap_inputs(proto: Any, latent: _Tensor, kind: _Tensor | None, drawn: _Tensor) -> None:
    """Put `z` and `label` before the foreign graph, each cast and shaped as its input wants it."""
    graph, feeds, text = proto.graph, [("z", "their_z", latent)], ""
    if kind is not None:
        feeds.append(("hot" if kind.width else "label", "their_label", kind))
    if kind is not None and kind.width:
        text = f"classes = Constant <value = int64[1] {{{kind.width}}}> ()"
        text += "ends = Constant <value = float[2] {0, 1}> () hot = OneHot (label, classes, ends)"
    for source, target, tensor in feeds:
        sizes = ", ".join(map(str, (-1, *tensor.shape[1:])))
        text += f"{source}_cast = Cast <to = {_NUMBERS[tensor.dtype]}> ({source})"
        text += f"{source}_shape = Constant <value = int64[{len(tensor.shape)}] {{{sizes}}}> ()"
        text += f"{target} = Reshape ({source}_cast, {source}_shape)"
    label = ", int64[batch] label" if kind else ""
    before = _onnx().parser.parse_graph(f"g (float[batch, {latent.width}] z{label}) => () {{ {text} }}")
    _rename(graph, {tensor.name: target for _, target, tensor in feeds} | {drawn.name: "their_image", "": ""})
    nodes, kept = [*before.node, *graph.node], [info for info in graph.output if info.name == "their_image"]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(before.input)
    graph.output.extend(kept)
    proto.ir_version = max(proto.ir_version, 4)  # before it, a constant had to be an input


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give the foreign values names that are not ours, and drop notes, among them sizes with a fixed batch."""
    for part in _walk(graph):
        for note in ("doc_string", "metadata_props", "quantization_annotation", "shape", "value_info"):
            if note in part.DESCRIPTOR.fields_by_name:
                part.ClearField(note)
        if part.DESCRIPTOR.name == "NodeProto":
            part.input[:] = [names.get(name, f"graph/{name}") for name in part.input]
            part.output[:] = [names.get(name, f"graph/{name}") for name in part.output]
        elif part.DESCRIPTOR.name in ("TensorProto", "ValueInfoProto"):
            part.name = names.get(part.name, f"graph/{part.name}")


def _wrap_output(path: Path, graph: Any, span: tuple[int, int] | None, shape: tuple[int, ...]) -> None:
    """Put `image` uint8 [batch, H, W, C] behind the foreign output, which has `shape`."""
    last, first = (len(shape) == 4 and shape[axis] in _CHANNELS for axis in (3, 1))
    if not (last or first):
        raise ModelInvalid(
            f"{path}: expected pictures [N, C, H, W] or [N, H, W, C] with 1, 3 or 4 channels, got an output "
            f"{list(shape)}; export it with such an output"
        )
    axes = [0, 2, 3, 1] if first and not (last and span is None) else [0, 1, 2, 3]
    size = ", ".join(str(shape[axis]) for axis in axes[1:])
    low, high = span or (0, 255)
    after = _onnx().parser.parse_graph(  # rounded and cut off as by the trainer's own export
        f"g () => (uint8[batch, {size}] image) {{"
        f"offset = Constant <value = float {{{-low}}}> () scale = Constant <value = float {{{255 / (high - low)}}}> ()"
        "black = Constant <value = float {0}> () white = Constant <value = float {255}> ()"
        "wide = Cast <to = 1> (their_image) shifted = Add (wide, offset) scaled = Mul (shifted, scale)"
        "rounded = Round (scaled) bounded = Clip (rounded, black, white) pixels = Cast <to = 2> (bounded)"
        f"image = Transpose <perm = {axes}> (pixels) }}"
    )
    graph.node.extend(after.node)
    del graph.output[:]
    graph.output.extend(after.output)


def _write(proto: Any, folder: Path, facts: dict[str, Any]) -> Model:
    folder.mkdir(parents=True)
    (folder / GRAPH).write_bytes(proto.SerializeToString(deterministic=True))
    tensors = {"inputs": proto.graph.input, "outputs": proto.graph.output}
    specs = {which: [_Tensor.of(info)._asdict() for info in infos] for which, infos in tensors.items()}
    manifest = Manifest.model_validate({"files": {GRAPH: sha256_of(folder / GRAPH)}} | facts | specs)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    return Model.open(folder)


def _try(path: Path, model: Model, span: tuple[int, int] | None) -> tuple[int, ...]:
    """Run the foreign graph and return the shape of what it draws; a row must not depend on its batch."""
    try:
        session = Session.open(model, SessionOptions(device="cpu"))
    except ModelInvalid as error:
        raise ModelInvalid(
            f"{path}: expected a graph that this ONNX Runtime can load, got {error.__cause__ or error}; export it with "
            f"an opset_version that it knows, or upgrade onnxruntime"
        ) from error
    rng, classes = np.random.default_rng(0), len(model.manifest.labels)
    z = rng.standard_normal((_BATCHES[-1], int(model.manifest.inputs[0].shape[1])), np.float32)  # [5, Z]
    rows: dict[str, NDArray[Any]] = {"z": z} | ({"label": np.zeros(len(z), np.int64)} if classes else {})
    one, two, five = (_run(path, session, rows, batch, _DYNAMIC) for batch in _BATCHES)
    slack = 2e-3 if span else 1  # where pixels were rounded, one on the edge may fall either way
    if not all(np.allclose(part, five[: len(part)], 1e-3, slack) for part in (one, two)):
        raise ModelInvalid(
            f"{path}: expected the same picture alone and in a batch, got others; export it after .eval(), and "
            f"without noise of its own"
        )
    if classes:
        rows["label"] = (classes - 1 - np.arange(len(z))) % classes  # int64 [5]
        remedy = f"its classes may be fewer than {classes}: give --classes or --labels"
        five = _run(path, session, rows, len(z), remedy)
    low, high = span or (0, 255)
    if not ((five >= low) & (five <= high)).mean() > 0.5:
        raise ModelInvalid(
            f"{path}: expected values in {low}..{high}, got {five.min():.3g}..{five.max():.3g}; give another --range"
        )
    return five.shape


def _run(path: Path, session: Session, rows: Arrays, batch: int, remedy: str) -> NDArray[np.float32]:
    try:
        [values] = session.run({name: value[:batch] for name, value in rows.items()}).values()
        got = f"an output {list(values.shape)}"
    except Exception as error:  # whatever ONNX Runtime raises
        values, got = np.empty(0), str(error)
    if values.shape[:1] != (batch,):
        raise ModelInvalid(f"{path}: expected {batch} pictures from a batch of {batch}, got {got}; {remedy}")
    if not np.isfinite(values).all():
        raise ModelInvalid(f"{path}: expected numbers as pixels, got NaN or infinity; export sound weights")
    return values.astype(np.float32)


def _warm_up(path: Path, model: Model) -> None:
    """Load the model as a start of the service will, through its plugin."""
    settings = Settings.read().model_copy(update={"models_dir": model.path.parent, "strict": False})
    registry = Registry.load(settings, only=model.name)
    registry.close()
    if reason := registry.models[model.name].reason:
        raise ModelInvalid(f"{path}: expected it to be served, got: {reason}; see `brigantine plugins list`")
