"""Adopt: an ONNX graph that others exported becomes a model that the `image` plugin serves.

`foreign` reads the file, which is not trusted. Then its inputs get the names and shapes that the plugin wants, its
floats become pixels inside the graph, and it is run before it is published. What the graph cannot tell is asked for, by
the option that gives it.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .adopted import STAGED, Adopted, settle
from .errors import ModelInvalid
from .foreign import NUMBERS, RANGES, Choices, Ports, Tensor, ports_of, read, walk
from .model import GRAPH, MANIFEST, Arrays, Manifest, Model, sha256_of
from .session import Session, SessionOptions

__all__ = ["adopt"]

_CHANNELS = (1, 3, 4)
_BATCHES = (1, 2, 5)
_SPILL, _MOST_SPILL = 0.01, 0.25
"""The part of the values seen outside of their range from which that is doubted, and from which it is wrong."""


class _Trial(NamedTuple):
    """What the foreign graph has drawn."""

    shape: tuple[int, ...]
    axes: list[int]
    """The order in which these are [N, H, W, C]."""
    low: float
    high: float
    doubts: list[str]


def adopt(path: Path, plugin: str, choices: Choices) -> Adopted:
    """Turn the ONNX graph at `path` into a model, try it, and publish it.

    The model has the inputs `z` float32 [batch, Z] and, where the graph draws classes, `label` int64 [batch], and the
    output `image` uint8 [batch, H, W, C]. `plugin` is the one that will serve it.

    Raises:
        ModelInvalid: it is no graph, is unsafe, draws no pictures, or needs a choice that was not made.
        RuntimeMissing: ONNX Runtime is not installed.
    """
    if plugin != "image":
        raise ModelInvalid(
            f"--plugin: expected image or text, got {plugin!r}; nothing else can be imported so far"
        )
    proto = read(path)
    ports = ports_of(path, proto.graph, choices)
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    facts = {
        "name": STAGED,
        "plugin": plugin,
        "description": choices.description or f"Imported from {path.name}.",
        "labels": [{"name": label} for label in ports.labels],
        "training": {"imported_from": path.name, "sha256": sha256_of(path), "producer": producer},
    }
    _wrap_inputs(proto, ports)
    with TemporaryDirectory(prefix="brigantine-import-") as aside:
        trial = _try(path, _write(proto, Path(aside) / "tried", facts), ports, choices.value_range)
        _wrap_output(proto.graph, ports.values, trial)
        served = _write(proto, Path(aside) / "models" / STAGED, facts)
        told = f"{path.name}: {ports}; {_told(trial, ports.values)}"
        return settle(path, served, choices.name, told, trial.doubts)


def _told(trial: _Trial, values: str) -> str:
    height, width, channels = (trial.shape[axis] for axis in trial.axes[1:])
    counted = "1 channel" if channels == 1 else f"{channels} channels"
    return (
        f"pictures of {width}x{height} in {counted}, with {f'values in {values}' if values else 'bytes'}, "
        f"of which {trial.low:.3g}..{trial.high:.3g} were seen"
    )


def _dynamic(inputs: list[str]) -> str:
    """The remedy for a graph with a fixed batch."""
    axes = ", ".join(f"{name!r}: {{0: 'batch'}}" for name in inputs)
    shapes = "{0: torch.export.Dim('batch')}, " * len(inputs)
    return (
        f"export it again with a dynamic batch: with dynamo=True dynamic_shapes=({shapes.strip()}), with dynamo=False "
        f"dynamic_axes={{{axes}}}, and in forward() no number for the batch in view() or reshape()"
    )


def _wrap_inputs(proto: Any, ports: Ports) -> None:
    """Put `z` and `label` before the foreign graph, each cast and shaped as its input wants it."""
    import onnx  # noqa: PLC0415 - slow to import

    latent, kind = ports.latent, ports.kind
    graph, feeds, text = proto.graph, [("z", "their_z", latent)], ""
    if kind is not None:
        feeds.append(("hot" if kind.width else "label", "their_label", kind))
    if kind is not None and kind.width:
        text = f"classes = Constant <value = int64[1] {{{kind.width}}}> ()"
        text += "ends = Constant <value = float[2] {0, 1}> () hot = OneHot (label, classes, ends)"
    for source, target, tensor in feeds:
        sizes = ", ".join(map(str, (-1, *tensor.shape[1:])))
        text += f"{source}_cast = Cast <to = {NUMBERS[tensor.dtype]}> ({source})"
        text += f"{source}_shape = Constant <value = int64[{len(tensor.shape)}] {{{sizes}}}> ()"
        text += f"{target} = Reshape ({source}_cast, {source}_shape)"
    label = ", int64[batch] label" if kind else ""
    before = onnx.parser.parse_graph(f"g (float[batch, {latent.width}] z{label}) => () {{ {text} }}")
    _rename(
        graph,
        {tensor.name: target for _, target, tensor in feeds} | {ports.drawn.name: "their_image", "": ""},
    )
    nodes, kept = [*before.node, *graph.node], [info for info in graph.output if info.name == "their_image"]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(before.input)
    graph.output.extend(kept)
    proto.ir_version = max(proto.ir_version, 4)  # before it, a constant had to be an input


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give the foreign values names that are not ours, and drop notes, among them sizes with a fixed batch."""
    for part in walk(graph):
        for note in ("doc_string", "metadata_props", "quantization_annotation", "shape", "value_info"):
            if note in part.DESCRIPTOR.fields_by_name:
                part.ClearField(note)
        if part.DESCRIPTOR.name == "NodeProto":
            part.input[:] = [names.get(name, f"graph/{name}") for name in part.input]
            part.output[:] = [names.get(name, f"graph/{name}") for name in part.output]
        elif part.DESCRIPTOR.name in ("TensorProto", "ValueInfoProto"):
            part.name = names.get(part.name, f"graph/{part.name}")


def _axes(path: Path, shape: tuple[int, ...], is_bytes: bool) -> list[int]:
    """The order in which the axes of `shape` are [N, H, W, C]."""
    last, first = (len(shape) == 4 and shape[axis] in _CHANNELS for axis in (3, 1))
    if not (last or first):
        raise ModelInvalid(
            f"{path}: expected pictures [N, C, H, W] or [N, H, W, C] with 1, 3 or 4 channels, got an output "
            f"{list(shape)}; export it with such an output"
        )
    return [0, 2, 3, 1] if first and not (last and is_bytes) else [0, 1, 2, 3]


def _wrap_output(graph: Any, values: str, trial: _Trial) -> None:
    """Put `image` uint8 [batch, H, W, C] behind the foreign output."""
    import onnx  # noqa: PLC0415 - slow to import

    size = ", ".join(str(trial.shape[axis]) for axis in trial.axes[1:])
    low, high = RANGES[values or "0..255"]
    after = onnx.parser.parse_graph(  # rounded and cut off as by the trainer's own export
        f"g () => (uint8[batch, {size}] image) {{"
        f"offset = Constant <value = float {{{-low}}}> () scale = Constant <value = float {{{255 / (high - low)}}}> ()"
        "black = Constant <value = float {0}> () white = Constant <value = float {255}> ()"
        "wide = Cast <to = 1> (their_image) shifted = Add (wide, offset) scaled = Mul (shifted, scale)"
        "rounded = Round (scaled) bounded = Clip (rounded, black, white) pixels = Cast <to = 2> (bounded)"
        f"image = Transpose <perm = {trial.axes}> (pixels) }}"
    )
    graph.node.extend(after.node)
    del graph.output[:]
    graph.output.extend(after.output)


def _write(proto: Any, folder: Path, facts: dict[str, Any]) -> Model:
    folder.mkdir(parents=True)
    (folder / GRAPH).write_bytes(proto.SerializeToString(deterministic=True))
    tensors = {"inputs": proto.graph.input, "outputs": proto.graph.output}
    specs = {which: [Tensor.of(info)._asdict() for info in infos] for which, infos in tensors.items()}
    manifest = Manifest.model_validate({"files": {GRAPH: sha256_of(folder / GRAPH)}} | facts | specs)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    return Model.open(folder)


def _try(path: Path, model: Model, ports: Ports, given: str) -> _Trial:
    """Run the foreign graph: a row must not depend on its batch, and its values must be in their range."""
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
    remedy = _dynamic([tensor.name for tensor in (ports.latent, ports.kind) if tensor])
    one, two, five = (_run(path, session, rows, batch, remedy) for batch in _BATCHES)
    slack = 2e-3 if ports.values else 1  # where pixels were rounded, one on the edge may fall either way
    if not all(np.allclose(part, five[: len(part)], 1e-3, slack) for part in (one, two)):
        raise ModelInvalid(
            f"{path}: expected the same picture alone and in a batch, got others; export it after .eval(), and "
            f"without noise of its own"
        )
    if classes:
        rows["label"] = (classes - 1 - np.arange(len(z))) % classes  # int64 [5]
        remedy = f"its classes may be fewer than {classes}: give --classes or --labels"
        five = _run(path, session, rows, len(z), remedy)
    axes = _axes(path, five.shape, not ports.values)
    doubts = _doubts(path, five, ports.values, given)
    return _Trial(five.shape, axes, float(five.min()), float(five.max()), doubts)


def _doubts(path: Path, drawn: NDArray[np.float32], values: str, given: str) -> list[str]:
    """Why the range may be another one.

    Raises:
        ModelInvalid: it must be another one.
    """
    low, high = RANGES[values or "0..255"]
    spilt = float(((drawn < low) | (drawn > high)).mean())
    seen = f"{drawn.min():.3g}..{drawn.max():.3g}"
    if spilt > _MOST_SPILL:
        raise ModelInvalid(f"{path}: expected values in {low}..{high}, got {seen}; give another --range")
    if spilt > _SPILL:
        return [
            f"{spilt:.0%} of the values, {seen}, are not in {values} and are cut off; is it another --range?"
        ]
    fitting = [
        name for name, (black, white) in RANGES.items() if black <= drawn.min() and drawn.max() <= white
    ]
    narrowest = min(fitting, key=lambda name: RANGES[name][1] - RANGES[name][0], default=given)
    if given != narrowest and given:
        return [
            f"only {seen} of {given} was seen, so that pictures have little contrast; try --range={narrowest}"
        ]
    return []


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
