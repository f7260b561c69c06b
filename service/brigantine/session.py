"""Session: runs a model's graph. It imports onnxruntime for all others, but for one of its tools in `half.py`.

On a CPU a batch of any size goes through as it is: padding would be computed like anything else. On a GPU batches are
padded to one of a few sizes, each of which has buffers on the device that stay where they are, and a CUDA graph that
was recorded over them. Only what goes in and finished bytes cross the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import metadata
from itertools import count
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .binding import EAGER, bound_on_device, bound_on_host, run_options
from .buckets import Buckets
from .errors import BrigantineError
from .model import Arrays, Model
from .opening import DTYPES, Device, SessionOptions, on_cpu, on_gpu
from .tensors import DeviceTensors, HostTensors, Shape, Tensors, View
from .turns import GPU
from .unmasking import LAST, MASK, told

__all__ = ["Device", "RuntimeMissing", "Session", "SessionOptions", "cuda_at_hand", "runtime"]


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
        recordable: bool = False,
    ) -> None:
        self.model = model
        self.options = options or SessionOptions()
        self.fell_back = fell_back
        """True when ONNX Runtime has CUDA but could not use it: a GPU was there to be had, and the CPU runs."""
        self._engine = engine
        self._buckets = buckets
        self._cache: Cache | None = None
        self._outputs = [spec.name for spec in model.manifest.outputs]
        self._recordable = recordable
        self._graph_ids = count(model.manifest.max_batch + 1)  # the others are those of buckets

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
        wants_gpu = options.device == "auto" and cuda_at_hand()
        found = on_gpu(ort, model, options) if wants_gpu else None
        if found is None and require_gpu:
            raise RuntimeMissing(
                f"a GPU is required, but ONNX Runtime {ort.__version__} runs {model.name} on the CPU. Install "
                "`onnxruntime-gpu[cuda,cudnn]` in onnxruntime's place (`make gpu` swaps them) and check the driver "
                "with nvidia-smi, or unset BRIGANTINE_REQUIRE_GPU"
            )
        engine, buckets, recordable = found or on_cpu(ort, model, options)
        return cls(model, engine, buckets, wants_gpu and found is None, options, recordable)

    @property
    def device(self) -> str:
        """Where the graph really runs: `tensorrt`, `cuda` or `cpu`. Asking for a GPU is not the same as getting one."""
        return self._engine.get_providers()[0].removesuffix("ExecutionProvider").lower()

    @cached_property
    def _eager(self) -> Any:
        """How a run goes on a GPU, of which no CUDA graph is made."""
        return None if self.device == "cpu" else run_options(runtime())

    @cached_property
    def is_unmasked(self) -> bool:
        """Whether `bound` takes lengths instead of a mask: see `unmasking`. `run` takes what the manifest states."""
        return any(spec.name == MASK for spec in self.model.manifest.inputs) and any(
            node.name == LAST for node in self._engine.get_inputs()
        )

    def bucket(self, rows: int) -> int:
        """How many rows a batch of `rows` is padded to."""
        return rows if self._buckets is None else self._buckets.size_for(rows)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph on a batch: named arrays [N, ...] in, named arrays [N, ...] out."""
        if self._buckets is not None:
            return self._buckets.run(arrays)
        if arrays and all(array.shape[:1] == (0,) for array in arrays.values()):
            # Graphs that were written anew may need a row.
            one = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
            return {name: value[:0] for name, value in self.run(one).items()}
        feeds = dict(arrays)
        if self.is_unmasked:
            feeds |= told(feeds.pop(MASK))
        if self._eager is None:
            values = self._engine.run(self._outputs, feeds)
        else:
            with GPU.use():
                values = self._engine.run(self._outputs, feeds, self._eager)
        return dict(zip(self._outputs, values, strict=True))

    @property
    def dtypes(self) -> dict[str, str]:
        """What the graph's tensors are made of here: on a GPU not always what the manifest says."""
        nodes = (*self._engine.get_inputs(), *self._engine.get_outputs())
        return {node.name: DTYPES.get(node.type, str(node.type)) for node in nodes}

    def tensors(self, shape: Shape, dtype: DTypeLike) -> Tensors:
        """Memory for a cache, where the graph runs."""
        if self.device == "cpu":
            return HostTensors(shape, dtype)
        return DeviceTensors(runtime(), "cuda", shape, dtype)

    def bound(
        self, inputs: Mapping[str, View], outputs: Mapping[str, View], record: bool = False
    ) -> Callable[[], None]:
        """The graph over tensors that stay where they are: each call reads `inputs` and writes `outputs`.

        An output may be an input too, where the graph allows that. On a GPU what is an array crosses the bus each time.

        Args:
            inputs: by name.
            outputs: by name.
            record: make a CUDA graph of it, where there is a GPU; the inputs must be valid already.
        """
        ort = runtime()
        if self.device == "cpu":
            return bound_on_host(ort, self._engine, inputs, outputs)
        graph_id = str(next(self._graph_ids)) if record and self._recordable else EAGER
        return bound_on_device(ort, self._engine, "cuda", inputs, outputs, graph_id)

    def attach(self, cache: Cache) -> None:
        """What of this session's cache is used shall be asked here."""
        self._cache = cache

    def forget(self) -> None:
        """Let the cache, where there is one, keep nothing of what has ended."""
        if self._cache is not None:
            self._cache.forget()

    @property
    def repeats(self) -> bool:
        """Whether the same batch gave the same bits again when it was tried; a CPU adds up in one order."""
        return self._buckets is None or self._buckets.reproducible

    @property
    def cache_used(self) -> float | None:
        """The share of the cache that is used, from 0 to 1; None where there is none."""
        return None if self._cache is None else self._cache.used


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
