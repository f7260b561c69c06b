"""Opening: a graph as ONNX Runtime's session, on a CPU or on a GPU, written anew where that pays or must be."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from .attention import attends, attentive
from .blocks import attending
from .buckets import Buckets
from .errors import ModelInvalid
from .half import halved
from .held import Held
from .model import Model, TensorSpec
from .shared import Shared
from .turns import GPU
from .unmasking import LAST, MASK, ROOM
from .upsampling import rewritten
from .weights import keep, written

__all__ = ["DTYPES", "Device", "Opened", "SessionOptions", "gpu_providers", "on_cpu", "on_gpu"]

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu"]

DTYPES = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}
"""What ONNX Runtime's types are to numpy."""

_HOW = {"plain": None, "in_blocks": True, "in_rows": False}
"""How a graph's attention is computed, by the name of the file in which it is kept."""
_ROOM = 5
"""How many times its files a graph may take: weights of two bytes are kept as floats of four, in two layouts."""


class SessionOptions(BaseModel):
    """How one model's graph is run. See `Settings`, whose fields of the same names are the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = "auto"
    """`auto` takes a CUDA device when there is one."""
    intra_threads: int = Field(default=1, ge=1, le=256)
    """Threads inside one run on a CPU: with two, one text of a small model comes 1.4 times as fast, and both cores are
    busy with it. With more than one, a row's bits may depend on its batch."""
    plain_convolutions: bool = True
    """Compute transposed convolutions as plain ones: on an x86 CPU up to 1.5 times as fast, on a GPU where otherwise
    the same seed would not give the same bits; the last bits are others."""
    cache_bytes: int = Field(default=2**29, ge=1)
    """The most memory for the cache of a language model."""
    gpu_mem_limit_bytes: int = Field(default=0, ge=0)
    """The most device memory for this model's activations; 0 sets no limit."""
    cuda_graphs: bool = True
    """Record each bucket's run once and replay it; without it each kernel is launched anew."""
    gpu_fp16: bool = True
    """Compute language models in half precision on a GPU, which has no attention with a cache in float32."""
    tensorrt: bool = False
    """Try TensorRT before CUDA."""
    tensorrt_fp16: bool = False
    """Let TensorRT compute in half precision."""
    tensorrt_cache_dir: Path | None = None
    """Where TensorRT keeps the engines that it builds."""


class Opened(NamedTuple):
    """A graph, ready to run."""

    engine: Any
    """ONNX Runtime's session."""
    buckets: Buckets | None = None
    """On a GPU, where all shapes but the batch are fixed."""
    recordable: bool = False
    """Whether CUDA graphs can be made of its runs."""


def on_gpu(ort: ModuleType, model: Model, options: SessionOptions) -> Opened | None:
    """The graph on a GPU; None where there is none that can be used.

    In half precision and recorded as CUDA graphs, as far as it lets itself be: what partly runs on the CPU does not.

    Raises:
        ModelInvalid: it cannot be loaded.
    """
    graphs: list[str | bytes] = [str(model.graph)]
    try:
        half = halved(model.graph) if options.gpu_fp16 else None
    except Exception as error:
        half = None
        log.warning("%s: runs as it is, it cannot be written in half precision: %s", model.graph, error)
    if half:
        graphs.insert(0, half)
    refusals: dict[str, Exception] = {}
    for graph, recorded in product(graphs, _recordings(model, options)):
        try:
            found = _on_gpu(ort, graph, model, options, recorded)
        except ModelInvalid:
            raise
        except Exception as error:
            refusals[_way(recorded, graph is half)] = error.with_traceback(None)  # it keeps what was opened
            continue
        _tell(model, found, refusals)
        if found and found.buckets and not found.buckets.reproducible and options.plain_convolutions:
            found = _reproducible(ort, model, options) or found
        return found
    *_, refusal = refusals.values()
    raise ModelInvalid(f"{model.graph}: ONNX Runtime cannot load it: {refusal}") from refusal


def _reproducible(ort: ModuleType, model: Model, options: SessionOptions) -> Opened | None:
    """With plain convolutions in place of transposed ones, if then the same bits come each time."""
    reason = "its kernels add up in any order"
    refusals: dict[str, Exception] = {}
    for recorded in _recordings(model, options):
        try:
            graph = rewritten(model.graph, for_gpu=True)
            found = _on_gpu(ort, graph, model, options, recorded) if graph else None
        except Exception as error:
            reason = f"it cannot be written anew: {error}"
            refusals[_way(recorded, False)] = error.with_traceback(None)
            continue
        if found and found.buckets and found.buckets.reproducible:
            _tell(model, found, refusals)
            return found
        break
    log.warning("%s: the same seed may give other bits each time on this GPU: %s", model.graph, reason)
    return None


def _way(recorded: bool, is_half: bool) -> str:
    return " ".join(["as CUDA graphs"] * recorded + ["in half precision"] * is_half) or "as it is"


def _tell(model: Model, found: Opened | None, refusals: Mapping[str, Exception]) -> None:
    """What was refused before a slower way was found."""
    if found:
        for way, refusal in refusals.items():
            log.warning(
                "%s: cannot be run %s on this GPU, and is slower by that: %s", model.graph, way, refusal
            )


def _recordings(model: Model, options: SessionOptions) -> list[bool]:
    """Whether CUDA graphs are made, in the order in which it is tried."""
    has_cache = any(spec.name.startswith("past_key_values.") for spec in model.manifest.inputs)
    return [True, False] if options.cuda_graphs and (has_cache or Buckets.fit(model)) else [False]


def _on_gpu(
    ort: ModuleType, graph: str | bytes, model: Model, options: SessionOptions, recorded: bool
) -> Opened | None:
    with GPU.use():
        providers = gpu_providers(ort, model, options, recorded)
        engine = Held(_opened(ort, graph, providers, _chosen(ort, options)))
    if engine.get_providers()[0] == "CPUExecutionProvider":
        return None
    _checked(model, engine, has_gpu=True)
    buckets = Buckets(ort, engine, model, "cuda", recorded) if Buckets.fit(model) else None
    return Opened(engine, buckets, recorded)


def on_cpu(ort: ModuleType, model: Model, options: SessionOptions) -> Opened:
    """The graph on a CPU, written anew where that is faster, with weights that it shares with other workers.

    Raises:
        ModelInvalid: it cannot be loaded.
    """
    try:
        engine = _shared(ort, model, options) or _own(ort, model, options)
    except Exception as error:
        raise ModelInvalid(f"{model.graph}: ONNX Runtime cannot load it: {error}") from error
    return Opened(_checked(model, engine, has_gpu=False))


def _shared(ort: ModuleType, model: Model, options: SessionOptions) -> Any:
    """The graph out of the file that all workers map; None where there is one alone, or it cannot be."""
    shared = Shared.found()
    if shared is None or not shared.weights.is_dir():
        return None
    size = sum((model.path / name).stat().st_size for name in model.manifest.files)
    place = shared.weights / model.name / f"{model.digest}-{options.plain_convolutions:d}"
    try:
        graph = written(place, _ROOM * size, lambda folder: _own(ort, model, options, folder))
        with _attending(_HOW[graph.stem]):
            chosen = _chosen(ort, options)
            chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it has been
            return _opened(ort, str(graph), [], chosen)
    except Exception as error:
        log.warning("%s: each worker has weights of its own, they cannot be shared: %s", model.graph, error)
        return None


def _own(ort: ModuleType, model: Model, options: SessionOptions, keep_in: Path | None = None) -> Any:
    """The graph with weights of its own, which is kept in a folder where there is one to be."""
    return _anew(ort, model, options, keep_in) or _as_it_is(ort, model, options, keep_in)


def _anew(ort: ModuleType, model: Model, options: SessionOptions, keep_in: Path | None) -> Any:
    """The graph as it is written anew for a CPU, ready; None where it runs as it is."""
    try:
        if options.plain_convolutions and (graph := rewritten(model.graph)):
            return _opened_for(ort, graph, None, options, keep_in)
        if found := attentive(model.graph):
            return _opened_for(ort, found.graph, found.in_blocks, options, keep_in)
    except Exception as error:  # it may run nevertheless, and is the same in each process
        if keep_in is not None:  # whoever has it for himself may well write it anew
            raise
        log.warning(
            "%s: runs as it is, it cannot be written anew: %s. It is only slower by that; export it again, or where it "
            "has upsampling layers set BRIGANTINE_PLAIN_CONVOLUTIONS=false to be spared this line",
            model.graph,
            error,
        )
    return None


def _as_it_is(ort: ModuleType, model: Model, options: SessionOptions, keep_in: Path | None) -> Any:
    in_blocks = True if attends(model.graph) else None
    return _opened_for(ort, str(model.graph), in_blocks, options, keep_in)


def _opened_for(
    ort: ModuleType, graph: str | bytes, in_blocks: bool | None, options: SessionOptions, keep_in: Path | None
) -> Any:
    """A graph on a CPU. `in_blocks` is None where it has no attention."""
    chosen = _chosen(ort, options)
    if keep_in is not None:
        [how] = [name for name, one in _HOW.items() if one is in_blocks]
        keep(chosen, keep_in / f"{how}.onnx")
    with _attending(in_blocks):
        return _opened(ort, graph, [], chosen)


def _attending(in_blocks: bool | None) -> AbstractContextManager[None]:
    return nullcontext() if in_blocks is None else attending(in_blocks)


def _chosen(ort: ModuleType, chosen: SessionOptions) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = chosen.intra_threads
    options.inter_op_num_threads = 1
    # Several threads that sleep between the parts of a run take longer than one. They spin for some moments only.
    spins = str(int(chosen.intra_threads > 1))
    options.add_session_config_entry("session.intra_op.allow_spinning", spins)
    options.log_severity_level = 3
    return options


def _opened(ort: ModuleType, graph: str | bytes, gpu: list[Any], options: Any) -> Any:
    engine = ort.InferenceSession(graph, options, [*gpu, "CPUExecutionProvider"])
    engine._model_bytes = None  # it would keep a graph for providers that are set later
    return engine


def gpu_providers(ort: ModuleType, model: Model, options: SessionOptions, graphs: bool) -> list[Any]:
    """TensorRT where it is wanted, then CUDA; `graphs`: with CUDA graphs, which need fixed shapes."""
    ort.preload_dlls()  # CUDA and cuDNN from their wheels, so that no system-wide install is needed
    cuda: dict[str, str | int] = {
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": int(graphs),
        # The default chooses an algorithm by timing it: another one, and other bits, after a restart.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": 0,
    }
    if options.gpu_mem_limit_bytes:
        cuda["gpu_mem_limit"] = options.gpu_mem_limit_bytes
    providers: list[Any] = [("CUDAExecutionProvider", cuda)]
    if options.tensorrt:
        providers.insert(0, ("TensorrtExecutionProvider", _tensorrt(model, options, graphs)))
    return providers


def _tensorrt(model: Model, options: SessionOptions, graphs: bool) -> dict[str, str | int]:
    def shapes(rows: int) -> str:
        return ",".join(
            f"{spec.name}:{'x'.join(map(str, (rows, *spec.shape[1:])))}" for spec in model.manifest.inputs
        )

    chosen: dict[str, str | int] = {"trt_fp16_enable": int(options.tensorrt_fp16)}
    if graphs and Buckets.fit(model):
        largest = model.manifest.max_batch
        chosen |= {
            "trt_cuda_graph_enable": 1,
            "trt_profile_min_shapes": shapes(1),
            "trt_profile_opt_shapes": shapes(largest),
            "trt_profile_max_shapes": shapes(largest),
        }
    if options.tensorrt_cache_dir is not None:
        folder = str(options.tensorrt_cache_dir)
        chosen |= {"trt_engine_cache_enable": 1, "trt_engine_cache_path": folder}
        chosen |= {"trt_timing_cache_enable": 1, "trt_timing_cache_path": folder}
    return chosen


def _checked(model: Model, engine: Any, has_gpu: bool) -> Any:
    """The same engine, whose tensors are what the manifest says, or on a GPU the half of that.

    Raises:
        ModelInvalid: they are not.
    """
    _check(model, engine.get_inputs(), model.manifest.inputs, "input", has_gpu)
    _check(model, engine.get_outputs(), model.manifest.outputs, "output", has_gpu)
    return engine


def _check(model: Model, nodes: Any, specs: tuple[TensorSpec, ...], kind: str, has_gpu: bool) -> None:
    found = {node.name: DTYPES.get(node.type, node.type) for node in nodes}
    stated = {spec.name: spec.dtype for spec in specs}
    if MASK in stated and LAST in found:  # it was written anew
        del stated[MASK]
        stated |= {LAST: "int32", ROOM: "int32"}
    half = {name for name in stated if has_gpu and (stated[name], found.get(name)) == ("float32", "float16")}
    if found | dict.fromkeys(half, "float32") != stated:
        raise ModelInvalid(
            f"{model.path}: the manifest states the {kind}s {stated}, the graph has {found}; "
            f"export and publish the model again"
        )
