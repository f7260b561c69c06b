"""What the tests of the image plugin need: a model with layers, and a station that makes what bodies ask for."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from brigantine import Media, Model, Session
from brigantine.model import MANIFEST, Manifest, TensorSpec, sha256_of
from brigantine.station import Fault, Made, Order, Outcome, Station
from brigantine_image import ImagePlugin
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageSequence

LAYERS, LAYER_DIM, SIDE = 4, 6, 8


def opened(path: Path) -> ImagePlugin:
    """The plugin with the model in the folder `path`."""
    model = Model.open(path)
    return ImagePlugin(model, Session.open(model))


def layered_model(folder: Path) -> Path:
    """A model without labels, whose `z` is [batch, LAYERS, LAYER_DIM]: image = uint8(255 * sigmoid(z @ weights))."""
    path = folder / "layered"
    path.mkdir(parents=True)
    weights = np.random.default_rng(0).standard_normal((LAYERS * LAYER_DIM, SIDE * SIDE)).astype(np.float32)
    initializers = {
        "line": np.array([-1, LAYERS * LAYER_DIM], np.int64),
        "shape": np.array([-1, SIDE, SIDE, 1], np.int64),
        "weights": weights,
        "white": np.float32(255),
    }
    nodes = [
        helper.make_node("Reshape", ["z", "line"], ["lines"]),
        helper.make_node("MatMul", ["lines", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["grey"]),
        helper.make_node("Mul", ["grey", "white"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["flat"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["flat", "shape"], ["image"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layered",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", LAYERS, LAYER_DIM])],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        path / "model.onnx",
    )
    manifest = Manifest(
        name="layered",
        plugin="image",
        files={"model.onnx": sha256_of(path / "model.onnx")},
        inputs=(TensorSpec(name="z", dtype="float32", shape=("batch", LAYERS, LAYER_DIM)),),
        outputs=(TensorSpec(name="image", dtype="uint8", shape=("batch", SIDE, SIDE, 1)),),
    )
    (path / MANIFEST).write_text(manifest.model_dump_json())
    return path


def order(job: int, body: Mapping[str, Any], media_type: str = "image/png") -> Order:
    return Order(job, body, None, body["seed"], media_type, 0, body.get("n", 1))


def outcomes(plugin: ImagePlugin, joining: Sequence[Sequence[Order]]) -> dict[tuple[int, int], Made | Fault]:
    """What becomes of each (job, row), when `joining[i]` joins before step i."""
    station = Station(plugin, 128)
    told: list[Outcome] = []
    for orders in joining:
        told += station.advance(orders).outcomes
    while station._running:
        told += station.advance([]).outcomes
    return {(job, index): outcome for job, index, outcome in told}


def media(plugin: ImagePlugin, media_type: str = "image/png", **body: Any) -> list[Media]:
    """The rows of one request, made alone. What its making raises is raised."""
    asked = {"seed": 1, **body}
    told = outcomes(plugin, [[order(0, asked, media_type)]])
    for outcome in told.values():
        if isinstance(outcome, Fault):
            raise outcome.error
    return [told[0, index].media for index in range(asked.get("n", 1))]  # type: ignore[union-attr]


def frames(medium: Media) -> list[NDArray[np.uint8]]:
    """The pictures in a medium, grey [H, W]."""
    picture = Image.open(io.BytesIO(medium.body))
    return [np.asarray(one.convert("L")) for one in ImageSequence.Iterator(picture)]


def drawn(plugin: ImagePlugin, **body: Any) -> list[NDArray[np.uint8]]:
    """The pictures of one request's only row, grey [H, W]."""
    [medium] = media(plugin, **body)
    return frames(medium)


def latent_of(seed: int, z_dim: int) -> NDArray[np.float32]:
    """The latent [z_dim] of a seed, as the documentation promises it."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(z_dim, dtype=np.float32)


def encoded(z: NDArray[np.float32]) -> str:
    return base64.b64encode(z.astype("<f4").tobytes()).decode()
