"""Export: a trained language model becomes a model folder, proven to predict what the network predicts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from brigantine.model import GRAPH, Manifest, Model, TensorSpec, sha256_of
from brigantine.session import Session, SessionOptions
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from ..errors import ExportMismatch
from ..export import write_manifest
from ..files import replacing
from .cache import Cache
from .graph import llama_graph
from .huggingface import network_config, write_companions
from .network import Llama

__all__ = ["Facts", "export_language", "rounded"]

MOST_ERROR = 4e-5
"""Largest difference allowed in a logit between network and graph: the rounding of float32 in a trained network, whose
logits reach 20. From the same network in float64 PyTorch's own float32 is up to 2.2e-5 away, and the graph 3.3e-5."""
MOST_ERROR_INT8 = 4.0
"""The same where the weights are 8-bit integers. What it costs is seen in the scores; this catches a broken graph."""

_BATCHES, _SEQUENCES, _PASTS = (1, 2, 7), (1, 5, 64), (0, 37)
_STEPS = 24
_MAX_BATCH = 16


class Facts(NamedTuple):
    """What the manifest says of a model and the graph cannot know."""

    name: str
    description: str
    licence: str
    training: dict[str, Any]


def rounded(network: Llama) -> Llama:
    """`network` with its matrices rounded to what float16 holds, which is how the graph stores them."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.copy_(weight.half())
    return network


def export_language(
    network: Llama, tokenizer: Tokenizer, folder: Path, facts: Facts, int8: bool = False
) -> Model:
    """Write `network`, which is `rounded`, to `folder`: graph, tokenizer, configuration, manifest.

    Args:
        network: on the CPU, in float32.
        tokenizer: its tokens.
        folder: where it is written.
        facts: what the manifest says.
        int8: store the matrices as 8-bit integers and multiply in them.

    Raises:
        ExportMismatch: the graph predicts something else than the network.
    """
    network = network.eval()
    weights = {name: weight.detach().numpy() for name, weight in network.state_dict().items()}
    graph = llama_graph(network_config(network.config, tokenizer), weights, half=not int8)
    if int8:
        graph = _quantised(graph)
    manifest = _manifest(graph, facts)
    with TemporaryDirectory() as scratch:
        model = _write(graph, network, tokenizer, Path(scratch) / "checked", manifest)
        session = Session.open(model, SessionOptions(device="cpu"))
        parity = dict(_compare(network, session, MOST_ERROR_INT8 if int8 else MOST_ERROR))
    return _write(graph, network, tokenizer, folder, manifest.model_copy(update={"parity": parity}))


def _quantised(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The products with constant matrices in 8-bit integers, a scale for each column."""
    with TemporaryDirectory() as scratch, _quiet():
        file = Path(scratch) / "int8.onnx"
        quantize_dynamic(
            graph,
            file,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            # What GroupQueryAttention gives, which the quantiser does not know.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice of onnxruntime's quantiser: its preparation does not know GroupQueryAttention."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _manifest(graph: onnx.ModelProto, facts: Facts) -> Manifest:
    return Manifest(
        name=facts.name,
        plugin="text",
        description=facts.description,
        licence=facts.licence,
        created=datetime.now(timezone.utc).replace(microsecond=0),
        files={GRAPH: ""},
        inputs=tuple(map(_spec, graph.graph.input)),
        outputs=tuple(map(_spec, graph.graph.output)),
        max_batch=_MAX_BATCH,
        training=facts.training,
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    whole = tensor.elem_type == onnx.TensorProto.INT64
    shape = tuple(size.dim_param or size.dim_value for size in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype="int64" if whole else "float32", shape=shape)


def _write(
    graph: onnx.ModelProto, network: Llama, tokenizer: Tokenizer, folder: Path, manifest: Manifest
) -> Model:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / GRAPH) as file:
        file.write_bytes(graph.SerializeToString(deterministic=True))
    names = [GRAPH, *write_companions(folder, network.config, tokenizer)]
    files = {name: sha256_of(folder / name) for name in sorted(names)}
    write_manifest(folder, manifest.model_copy(update={"files": files}))
    return Model.open(folder)


def _compare(network: Llama, session: Session, most: float) -> Iterator[tuple[str, float]]:
    """The largest difference in a logit for each shape, "batch x sequence + past", and for tokens one by one.

    Raises:
        ExportMismatch: it is above `most`.
    """
    for name, (batch, parts) in _cases(network.config.context_tokens).items():
        rng = np.random.default_rng(batch)
        ids = rng.integers(network.config.vocabulary, size=(batch, sum(parts)))  # int64 [N, T]
        with torch.inference_mode():
            expected = network(torch.from_numpy(ids)).numpy()  # [N, T, V]
        error = float(np.abs(_predicted(session, ids, parts) - expected).max())
        if not error <= most:  # NaN is a difference too
            raise ExportMismatch(
                f"{GRAPH} at {name} (batch x sequence + past): expected the network's logits within {most}, got "
                f"{error:.2g}. Install the versions in constraints.txt, or look for an operator that differs between "
                "them."
            )
        yield name, error


def _cases(context: int) -> dict[str, tuple[int, tuple[int, ...]]]:
    """By name: rows, and how many tokens of each come in at a time."""
    cases: dict[str, tuple[int, tuple[int, ...]]] = {
        f"{batch}x{sequence}+{past}": (batch, (past, sequence))
        for batch in _BATCHES
        for sequence in _SEQUENCES
        for past in _PASTS
        # GroupQueryAttention takes several tokens after a past in a batch of one only.
        if past + sequence <= context and (not past or 1 in (batch, sequence))
    }
    return cases | {f"2x1, {_STEPS} times": (2, (1,) * min(_STEPS, context))}


def _predicted(session: Session, ids: NDArray[np.int64], parts: tuple[int, ...]) -> NDArray[np.float32]:
    """The graph's logits [N, T, V] of ids [N, T] that come in so many at a time."""
    cache = Cache(session, len(ids))
    logits: list[NDArray[np.float32]] = []
    start = 0
    for part in parts:
        if part:
            logits.append(cache.run(ids[:, start : start + part]))
        start += part
    return np.concatenate(logits, 1)
