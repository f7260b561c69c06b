"""Session: runs a model's graph. The only file that imports onnxruntime."""

from __future__ import annotations

from importlib import metadata
from types import ModuleType
from typing import Any, Literal

import numpy as np

from .errors import BrigantineError, ModelInvalid
from .model import Arrays, Model, TensorSpec

__all__ = ["Device", "RuntimeMissing", "Session", "runtime"]

Device = Literal["auto", "cpu", "cuda"]

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


class RuntimeMissing(BrigantineError):
    """ONNX Runtime is not installed, or two builds of it lie on top of each other."""

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


class Session:
    """A model's graph, ready to run on one device. `run` may be called from several threads at once."""

    def __init__(self, model: Model, engine: Any) -> None:
        self.model = model
        self._engine = engine
        self._outputs = [spec.name for spec in model.manifest.outputs]

    @classmethod
    def open(cls, model: Model, threads: int = 1, device: Device = "auto") -> Session:
        """Load `model.onnx` and check its tensors against the manifest.

        Args:
            model: a verified model folder.
            threads: threads inside one run. With 1, the CPU provider gives the same bits for a row
                whatever else is in its batch; parallelism comes from running several batches at once.
            device: `auto` takes a CUDA device when there is one.

        Raises:
            ModelInvalid: the graph cannot be loaded, or is not what the manifest says.
            RuntimeMissing: see `runtime`; or `device="cuda"` and ONNX Runtime cannot use one.
        """
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A waiting thread must sleep: an idle service costs nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            engine = ort.InferenceSession(str(model.graph), options, providers=_providers(ort, device))
        except Exception as error:
            raise ModelInvalid(f"{model.graph}: ONNX Runtime cannot load it: {error}") from error
        session = cls(model, engine)
        if device == "cuda" and session.device != "cuda":
            raise RuntimeMissing(
                f"device cuda was asked for, but ONNX Runtime {ort.__version__} runs {model.name} on the "
                f"{session.device}. Install `onnxruntime-gpu[cuda,cudnn]` and check the driver, or use device auto"
            )
        session._check(engine.get_inputs(), model.manifest.inputs, "input")
        session._check(engine.get_outputs(), model.manifest.outputs, "output")
        return session

    @property
    def device(self) -> str:
        """Where the graph really runs: `cuda` or `cpu`. Asking for a GPU is not the same as getting one."""
        return "cuda" if self._engine.get_providers()[0] == "CUDAExecutionProvider" else "cpu"

    def run(self, arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run the graph on a batch: named arrays [N, ...] in, named arrays [N, ...] out."""
        values = self._engine.run(self._outputs, dict(arrays))
        return dict(zip(self._outputs, values, strict=True))

    def _check(self, nodes: Any, specs: tuple[TensorSpec, ...], kind: str) -> None:
        found = {node.name: _DTYPES.get(node.type, node.type) for node in nodes}
        stated = {spec.name: spec.dtype for spec in specs}
        if found != stated:
            raise ModelInvalid(
                f"{self.model.path}: the manifest states the {kind}s {stated}, the graph has {found}; "
                f"export and publish the model again"
            )


def _providers(ort: ModuleType, device: Device) -> list[str]:
    wanted = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in ort.get_available_providers():
        ort.preload_dlls()  # CUDA and cuDNN from their wheels, so that no system-wide install is needed
        wanted.insert(0, "CUDAExecutionProvider")
    return wanted


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
