"""Export: a trained generator becomes a model folder, proven to draw what the network draws."""

from __future__ import annotations

import math
import warnings
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from brigantine.model import MANIFEST, Label, Manifest, Model, TensorSpec, sha256_of
from brigantine.session import Session, SessionOptions
from torch import Tensor, nn

from .errors import ExportMismatch
from .files import replacing
from .networks import Generator

__all__ = ["BATCHES", "Facts", "export_model", "label_of", "write_manifest"]

BATCHES = (1, 2, 7, 64)
"""Batch sizes at which the graph is compared with the network."""

MOST_ERROR = 1e-5
"""Largest difference allowed in an image before it is rounded, -1..1."""
MOST_PIXELS = 1e-4
"""Largest share of rounded pixels that may differ: one whose value lies on the edge may fall either way."""

_COMPARED = 256
"""Images compared at each batch size: in a single one, one pixel on the edge is more than its share."""

_GRAPH = "model.onnx"
_OPSET = 20
_MAX_BATCH = 64


class Facts(NamedTuple):
    """What the manifest says of a model and the graph cannot know."""

    name: str
    description: str
    licence: str
    labels: tuple[Label, ...]
    training: dict[str, Any]


class _Served(nn.Module):
    """The generator with its post-processing, so that the service has none to get wrong."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The image as it is served, uint8 [N, H, W, C], and as it was drawn, float32 [N, C, H, W], -1..1."""
        drawn = self.generator(z, label)
        pixels = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)  # [N, C, H, W]
        return pixels.permute(0, 2, 3, 1), drawn


def export_model(generator: Generator, folder: Path, facts: Facts) -> Model:
    """Write `generator` to `folder` as model.onnx and manifest.json.

    The graph has the inputs `z` float32 [batch, z_dim] and `label` int64 [batch] and the output `image`
    uint8 [batch, H, W, C]. It is compared with the network at each of BATCHES before anything is written.

    Raises:
        ExportMismatch: the graph draws other images than the network.
    """
    network = _Served(generator).float().cpu().eval()
    checked = _graph_of(network, generator)  # with the output `drawn`, to compare before rounding
    graph = _without_drawn(checked)
    with TemporaryDirectory() as scratch:
        manifest = _manifest(generator, facts)
        twin = manifest.model_copy(update={"outputs": (*manifest.outputs, _drawn_spec(generator))})
        session = Session.open(_write(checked, Path(scratch) / "checked", twin), SessionOptions(device="cpu"))
        served = Session.open(_write(graph, Path(scratch) / "served", manifest), SessionOptions(device="cpu"))
        parity = {str(batch): _compare(network, session, served, batch) for batch in BATCHES}
    return _write(graph, folder, manifest.model_copy(update={"parity": parity}))


def label_of(name: str) -> Label:
    """A class by torchvision's name for it: "7 - seven" is `seven`, also called `7`."""
    alias, dash, word = name.partition(" - ")
    return Label(name=word, aliases=(alias,)) if dash else Label(name=name)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put manifest.json in place, whole or not at all."""
    with replacing(folder / MANIFEST) as file:
        file.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _graph_of(network: _Served, generator: Generator) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    example = torch.zeros(2, generator.z_dim), torch.zeros(2, dtype=torch.int64)
    with warnings.catch_warnings():
        # The exporter warns of its own deprecated calls; what matters is compared below.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            example,
            dynamo=True,
            opset_version=_OPSET,
            input_names=["z", "label"],
            output_names=["image", "drawn"],
            dynamic_shapes=({0: batch}, {0: batch}),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # with dynamo=True there is always one
    graph = _bare(program.model_proto)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: they hold the source paths of the machine that it ran on."""
    graph = model.graph
    del graph.value_info[:]
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    return model


def _without_drawn(model: onnx.ModelProto) -> onnx.ModelProto:
    served = onnx.ModelProto()
    served.CopyFrom(model)
    del served.graph.output[1:]
    onnx.checker.check_model(served, full_check=True)
    return served


def _manifest(generator: Generator, facts: Facts) -> Manifest:
    channels, height, width = generator.image_shape
    return Manifest(
        name=facts.name,
        plugin="image",
        description=facts.description,
        licence=facts.licence,
        created=datetime.now(timezone.utc).replace(microsecond=0),
        files={_GRAPH: ""},
        inputs=(
            TensorSpec(name="z", dtype="float32", shape=("batch", generator.z_dim)),
            TensorSpec(name="label", dtype="int64", shape=("batch",)),
        ),
        outputs=(TensorSpec(name="image", dtype="uint8", shape=("batch", height, width, channels)),),
        labels=facts.labels,
        max_batch=_MAX_BATCH,
        training=facts.training,
    )


def _drawn_spec(generator: Generator) -> TensorSpec:
    return TensorSpec(name="drawn", dtype="float32", shape=("batch", *generator.image_shape))


def _write(graph: onnx.ModelProto, folder: Path, manifest: Manifest) -> Model:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _GRAPH) as file:
        file.write_bytes(graph.SerializeToString(deterministic=True))
    write_manifest(folder, manifest.model_copy(update={"files": {_GRAPH: sha256_of(folder / _GRAPH)}}))
    return Model.open(folder)


def _compare(network: _Served, checked: Session, served: Session, batch: int) -> float:
    """The largest difference between network and graph in images before rounding, -1..1.

    Raises:
        ExportMismatch: it is above MOST_ERROR, or more than MOST_PIXELS of the rounded pixels differ.
    """
    rng = np.random.default_rng(batch)
    errors: list[float] = []
    differing: list[float] = []
    for _ in range(math.ceil(_COMPARED / batch)):
        z = rng.standard_normal((batch, network.generator.z_dim), dtype=np.float32)  # [N, z_dim]
        label = rng.integers(network.generator.classes, size=batch)  # int64 [N]
        with torch.inference_mode():
            pixels, drawn = (part.numpy() for part in network(torch.from_numpy(z), torch.from_numpy(label)))
        arrays = {"z": z, "label": label}
        errors.append(float(np.abs(checked.run(arrays)["drawn"] - drawn).max()))
        differing.append(float((served.run(arrays)["image"] != pixels).mean()))
    error, share = float(np.max(errors)), float(np.mean(differing))  # np.max and not max: it keeps NaN
    if not (error <= MOST_ERROR and share <= MOST_PIXELS):
        raise ExportMismatch(
            f"{_GRAPH} at batch {batch}: expected the network's images within {MOST_ERROR} (-1..1) and "
            f"{MOST_PIXELS:.2%} of pixels, got {error:.2g} and {share:.2%}. Upgrade onnx, onnxscript and "
            "onnxruntime to the versions in constraints.txt, or look for an operator that differs between them."
        )
    return error
