"""ONNX Runtime as it looks where there is a GPU: everything runs on the CPU, under other names."""

from __future__ import annotations

import weakref
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from brigantine.turns import GPU

__all__ = ["Alive", "pretend"]


class Alive:
    """What lies on the device, and what was let go of where that would end the process."""

    def __init__(self) -> None:
        self._numbers = count()
        self._things: dict[int, str] = {}
        self.astray: list[str] = []

    @property
    def kinds(self) -> list[str]:
        return list(self._things.values())

    def mark(self, thing: object) -> object:
        """What the thing is to keep for as long as it is there.

        An array, which goes as a thing of C++ does: when nobody has it. An object of Python's is finalized before that,
        as soon as the garbage collector has come upon it.
        """
        mark, number = np.empty(0), next(self._numbers)
        self._things[number] = type(thing).__name__
        weakref.finalize(mark, self._remove, number)
        return mark

    def _remove(self, number: int) -> None:
        kind = self._things.pop(number)
        if not (GPU._users or GPU._lock.locked()):  # as nobody can begin to record
            self.astray.append(kind)


class OnDevice:
    """What is known to lie on the device."""

    alive = Alive()

    def is_there(self) -> None:
        self._mark = self.alive.mark(self)


class Value(OnDevice):
    """Memory of the device: what is read of it is a copy."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.is_there()

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: Any, dtype: Any, device: str, number: int) -> Value:
        assert (device, number) == ("cuda", 0)
        return cls(onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, "cpu", 0))

    def update_inplace(self, array: np.ndarray) -> None:
        self.value.update_inplace(np.ascontiguousarray(array))

    def numpy(self) -> np.ndarray:
        return self.value.numpy().copy()

    def data_ptr(self) -> int:
        return self.value.data_ptr()


class Binding(OnDevice):
    def __init__(self, binding: Any) -> None:
        self.binding = binding
        self.is_there()

    def bind_input(self, name: str, device: str, *others: Any) -> None:
        assert device == "cuda", "what is on the host is copied once, when it is bound"
        self.binding.bind_input(name, "cpu", *others)

    def bind_output(self, name: str, device: str, *others: Any) -> None:
        assert device == "cuda"
        self.binding.bind_output(name, "cpu", *others)

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.binding.bind_ortvalue_input(name, value.value)

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.binding.bind_ortvalue_output(name, value.value)


class Engine(OnDevice, onnxruntime.InferenceSession):
    """A session that says it has CUDA. With `refuses_recording` it has a part that runs on the CPU.

    A run that has a number out of `fails_in` fails.
    """

    refuses_recording = False
    fails_in: frozenset[str] = frozenset()

    def __init__(self, graph: Any, options: Any = None, providers: Any = ()) -> None:
        self.recorded = any(isinstance(one, tuple) and one[1].get("enable_cuda_graph") for one in providers)
        if self.recorded and self.refuses_recording:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        self.on_gpu = "CUDAExecutionProvider" in {
            one[0] if isinstance(one, tuple) else one for one in providers
        }
        self.graph_ids: list[str] = []
        super().__init__(graph, options, ["CPUExecutionProvider"])
        if self.on_gpu:
            self.is_there()

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider"] * self.on_gpu + ["CPUExecutionProvider"]

    def io_binding(self) -> Any:
        return Binding(super().io_binding()) if self.on_gpu else super().io_binding()

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        if run_options is not None:
            self.graph_ids.append(run_options.get_run_config_entry("gpu_graph_id"))
            if self.graph_ids[-1] in self.fails_in:
                raise RuntimeError(
                    "CUDA failure 901: operation failed due to a previous error during capture"
                )
        super().run_with_iobinding(getattr(iobinding, "binding", iobinding), run_options)


def pretend(monkeypatch: pytest.MonkeyPatch, refuses_recording: bool = False) -> Alive:
    """Let sessions be opened as where there is a GPU; what lies on it from then on."""
    monkeypatch.setattr(OnDevice, "alive", Alive())
    monkeypatch.setattr(Engine, "refuses_recording", refuses_recording)
    ort = SimpleNamespace(
        InferenceSession=Engine,
        OrtValue=Value,
        RunOptions=onnxruntime.RunOptions,
        SessionOptions=onnxruntime.SessionOptions,
        preload_dlls=lambda: None,
        __version__=onnxruntime.__version__,
    )
    monkeypatch.setattr("brigantine.session.runtime", lambda: ort)
    monkeypatch.setattr("brigantine.session.cuda_at_hand", lambda: True)
    return OnDevice.alive
