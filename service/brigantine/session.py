"""Session: runs a model's graph. The only file that imports onnxruntime.

On a CPU a batch of any size goes through as it is: padding would be computed like anything else. On a GPU batches are
padded to a power of two, each of which has buffers on the device that stay where they are, and a CUDA graph that was
recorded over them. Only what goes in and finished bytes cross the bus.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from .buckets import Buckets
from .errors import BrigantineError, ModelInvalid
from .model import Arrays, Model, TensorSpec
from .upsampling import rewritten

__all__ = ["Device", "RuntimeMissing", "Session", "SessionOptions", "cuda_at_hand", "runtime"]

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu"]

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}


class SessionOptions(BaseModel):
    """How one model's graph is run. See `Settings`, whose fields of the same names are the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = "auto"
    """`auto` takes a CUDA device when there is one."""
    intra_threads: int = Field(default=1, ge=1, le=256)
    """Threads inside one run on a CPU. With more than one, a row's bits may depend on its batch."""
    plain_convolutions: bool = True
    """Compute transposed convolutions as plain ones on an x86 CPU: up to 1.5 times as fast, and other last bits."""
    cache_bytes: int = Field(default=2**29, ge=1)
    """The most memory for the cache of a language model."""
    gpu_mem_limit_bytes: int = Field(default=0, ge=0)
    """The most device memory for this model's activations; 0 sets no limit."""
    cuda_graphs: bool = True
    """Record each bucket's run once and replay it; without it each kernel is launched anew."""
    tensorrt: bool = False
    """Try TensorRT before CUDA."""
    tensorrt_fp16: bool = False
    """Let TensorRT compute in half precision."""
    tensorrt_cache_dir: Path | None = None
    """Where TensorRT keeps the engines that it builds."""


class RuntimeMissing(BrigantineError):
    """ONNX Runtime is not installed, two builds of it lie on top of each other, or the GPU cannot be used."""

    code = "runtime_missing"


def runtime() -> ModuleType:
    """Import ONNX Runtime, of which exactly one build must be installed.

    Raises:
        RuntimeMissing: neither `onnxruntime` nor `onnxruntime-gpu` is installed, or both are.
    """
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(found) == 2:
        raise RuntimeMissing(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. Keep one: "
            "`pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install onnxruntime` for a CPU or "
            "`pip install 'onnxruntime-gpu[cuda,cudnn]'` for a GPU"
        )
    try:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415 - 0.2 s, not at import
    except ImportError as error:
        raise RuntimeMissing(
            f"ONNX Runtime cannot be imported ({error}). Install one build: `pip install onnxruntime` for a CPU "
            "or `pip install 'onnxruntime-gpu[cuda,cudnn]'` for a GPU"
        ) from error
    return onnxruntime


def cuda_at_hand() -> bool:
    """Whether this build of ONNX Runtime has CUDA; whether there is a device shows when a graph is loaded.

    Raises:
        RuntimeMissing: see `runtime`.
    """
    return "CUDAExecutionProvider" in runtime().get_available_providers()


class Cache(Protocol):
    """What a language model remembers of its sequences."""

    @property
    def used(self) -> float:
        """The share that is used, from 0 to 1."""
        ...

    def forget(self) -> None:
        """Keep nothing of sequences that have ended, and give its memory back."""


class Session:
    """A model's graph, ready to run on one device. `run` may be called from several threads at once."""

    def __init__(
        self,
        model: Model,
        engine: Any,
        buckets: Buckets | None = None,
        fell_back: bool = False,
        options: SessionOptions | None = None,
    ) -> None:
        self.model = model
        self.options = options or SessionOptions()
        self.fell_back = fell_back
        """True when ONNX Runtime has CUDA but could not use it: a GPU was there to be had, and the CPU runs."""
        self._engine = engine
        self._buckets = buckets
        self._cache: Cache | None = None
        self._outputs = [spec.name for spec in model.manifest.outputs]

    @classmethod
    def open(
        cls,
        model: Model,
        options: SessionOptions | None = None,
        require_gpu: bool = False,
    ) -> Session:
        """Load `model.onnx`, check its tensors against the manifest, and on a GPU warm up every bucket.

        Args:
            model: a verified model folder.
            options: how to run it.
            require_gpu: raise instead of running on a CPU.

        Raises:
            ModelInvalid: the graph cannot be loaded, or is not what the manifest says.
            RuntimeMissing: see `runtime`; or a GPU is required and cannot be used.
        """
        ort = runtime()
        options = options or SessionOptions()
        cuda = options.device == "auto" and cuda_at_hand()
        fixed = Buckets.fit(model)
        graphs = fixed and options.cuda_graphs
        providers = _gpu_providers(ort, model, options, graphs) if cuda else []
        engine = (None if cuda else _anew(ort, model, options)) or _load(ort, model, providers, options)
        on_gpu = engine.get_providers()[0] != "CPUExecutionProvider"
        if require_gpu and not on_gpu:
            raise RuntimeMissing(
                f"a GPU is required, but ONNX Runtime {ort.__version__} runs {model.name} on the CPU. Install "
                "`onnxruntime-gpu[cuda,cudnn]` instead of onnxruntime and check the driver with nvidia-smi, or "
                "unset BRIGANTINE_REQUIRE_GPU"
            )
        _check(model, engine.get_inputs(), model.manifest.inputs, "input")
        _check(model, engine.get_outputs(), model.manifest.outputs, "output")
        if cuda and not on_gpu:
            engine = _anew(ort, model, options) or engine  # the same as on any other CPU
        buckets = Buckets(ort, engine, model, "cuda") if on_gpu and fixed else None
        return cls(model, engine, buckets, cuda and not on_gpu, options)

    @property
    def device(self) -> str:
        """Where the graph really runs: `tensorrt`, `cuda` or `cpu`. Asking for a GPU is not the same as getting one."""
        return self._engine.get_providers()[0].removesuffix("ExecutionProvider").lower()

    def bucket(self, rows: int) -> int:
        """How many rows a batch of `rows` is padded to."""
        return rows if self._buckets is None else self._buckets.size_for(rows)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph on a batch: named arrays [N, ...] in, named arrays [N, ...] out."""
        if self._buckets is not None:
            return self._buckets.run(arrays)
        values = self._engine.run(self._outputs, dict(arrays))
        return dict(zip(self._outputs, values, strict=True))

    def bound(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        """The graph over arrays that stay where they are: each call reads `inputs` and writes `outputs`.

        An output may be an input too, where the graph allows that. Arrays must be contiguous; on a GPU their content
        crosses the bus each time.
        """
        binding = self._engine.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        options = runtime().RunOptions()
        options.log_severity_level = 4  # what goes wrong is raised, and need not be written on stderr, too
        options.add_run_config_entry("gpu_graph_id", "-1")  # asked for in each run; its absence costs 40 us

        def run(kept: tuple[Arrays, Arrays] = (inputs, outputs)) -> None:  # kept: their memory is in use
            self._engine.run_with_iobinding(binding, options)

        return run

    def attach(self, cache: Cache) -> None:
        """What of this session's cache is used shall be asked here."""
        self._cache = cache

    def forget(self) -> None:
        """Let the cache, where there is one, keep nothing of what has ended."""
        if self._cache is not None:
            self._cache.forget()

    @property
    def cache_used(self) -> float | None:
        """The share of the cache that is used, from 0 to 1; None where there is none."""
        return None if self._cache is None else self._cache.used


def _anew(ort: ModuleType, model: Model, options: SessionOptions) -> Any:
    """The graph with its upsampling layers written anew, ready for a CPU; None where it runs as it is."""
    if not options.plain_convolutions:
        return None
    try:
        graph = rewritten(model.graph)
        engine = graph and _opened(ort, graph, [], options)
    except Exception as error:  # it may run nevertheless, and is the same in each process
        log.warning(
            "%s: runs as it is, its upsampling layers cannot be written anew: %s. It is only slower by that; export "
            "it again, or set BRIGANTINE_PLAIN_CONVOLUTIONS=false to be spared this line",
            model.graph,
            error,
        )
        return None
    if engine:
        engine._model_bytes = None  # it would keep them for providers that are set later
    return engine


def _load(ort: ModuleType, model: Model, gpu: list[Any], options: SessionOptions) -> Any:
    try:
        return _opened(ort, str(model.graph), gpu, options)
    except Exception as error:
        raise ModelInvalid(f"{model.graph}: ONNX Runtime cannot load it: {error}") from error


def _opened(ort: ModuleType, graph: str | bytes, gpu: list[Any], chosen: SessionOptions) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = chosen.intra_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle service costs nothing
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, [*gpu, "CPUExecutionProvider"])


def _gpu_providers(ort: ModuleType, model: Model, options: SessionOptions, graphs: bool) -> list[Any]:
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
    if graphs:
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


def _check(model: Model, nodes: Any, specs: tuple[TensorSpec, ...], kind: str) -> None:
    found = {node.name: _DTYPES.get(node.type, node.type) for node in nodes}
    stated = {spec.name: spec.dtype for spec in specs}
    if found != stated:
        raise ModelInvalid(
            f"{model.path}: the manifest states the {kind}s {stated}, the graph has {found}; "
            f"export and publish the model again"
        )


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
