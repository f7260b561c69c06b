"""The memory of a language model's cache: on the host, or on the device that its graph runs on.

A cache is [layers, slots, heads, tokens, head_dim], keys and values each counted as a layer; a graph has a tensor of
its own for each layer, of as many slots as it reads.
"""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .held import Held
from .turns import GPU

__all__ = ["DeviceTensors", "HostTensors", "Shape", "Tensors", "View", "device_copy"]

Shape = tuple[int, int, int, int, int]


class View(NamedTuple):
    """A tensor where it lies: what a graph is bound to."""

    device: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    address: int
    owner: Any
    """Whose memory it is; on the host the array itself."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> View:
        """A contiguous array on the host."""
        return cls("cpu", array.dtype, array.shape, array.ctypes.data, array)


class Tensors(Protocol):
    """The memory of a cache."""

    shape: Shape

    def view(self, layer: int, first: int, slots: int) -> View:
        """So many slots beside each other in one layer."""
        ...

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let a slot begin with the same tokens as another one."""

    def clear(self) -> None:
        """Give back what can be given back."""


class HostTensors:
    """In the host's memory, as `array`."""

    def __init__(self, shape: Shape, dtype: DTypeLike) -> None:
        self.shape = shape
        # Pages that nobody has written to take no memory yet.
        self._memory = mmap.mmap(
            -1, math.prod(shape) * np.dtype(dtype).itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        with suppress(OSError):  # a kernel without
            self._memory.madvise(mmap.MADV_HUGEPAGE)  # as numpy does for what is so large
        self.array: NDArray[Any] = np.ndarray(shape, dtype, self._memory)

    def view(self, layer: int, first: int, slots: int) -> View:
        return View.of(self.array[layer, first : first + slots])

    def copy(self, source: int, target: int, tokens: int) -> None:
        self.array[:, target, :, :tokens] = self.array[:, source, :, :tokens]

    def swap(self, one: int, other: int, tokens: int) -> None:
        """Let two slots change places, as far as so many tokens."""
        aside = np.array(self.array[:, one, :, :tokens])
        self.array[:, one, :, :tokens] = self.array[:, other, :, :tokens]
        self.array[:, other, :, :tokens] = aside

    def clear(self) -> None:
        self._memory.madvise(mmap.MADV_DONTNEED)  # it is zero from now on


class DeviceTensors:
    """In a device's memory, where they stay until the end.

    Args:
        ort: ONNX Runtime.
        device: as it names it, `cuda`; with `cpu` the same runs without one.
    """

    def __init__(self, ort: ModuleType, device: str, shape: Shape, dtype: DTypeLike) -> None:
        self.shape = shape
        self._dtype = np.dtype(dtype)
        self._device = device
        layers, slots, *one = shape
        self._slot_numbers = math.prod(one)
        nothing: NDArray[Any] = np.zeros(
            (slots, *one), dtype
        )  # fresh memory holds anything, and 0 * NaN is NaN
        with GPU.use():
            self._layers = [device_copy(ort, nothing, device) for _ in range(layers)]
        self._copier = _copier(ort, device, self._dtype)

    def view(self, layer: int, first: int, slots: int) -> View:
        address = self._layers[layer].data_ptr() + first * self._slot_numbers * self._dtype.itemsize
        return View(self._device, self._dtype, (slots, *self.shape[2:]), address, self)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """All of it: a slot is one piece in each layer, its first tokens are not."""
        with GPU.use():
            for layer in range(len(self._layers)):
                self._copy(layer, source, target)

    def _copy(self, layer: int, source: int, target: int) -> None:
        binding = self._copier.io_binding()
        for bind, name, slot in ((binding.bind_input, "x", source), (binding.bind_output, "y", target)):
            view = self.view(layer, slot, 1)
            bind(name, view.device, 0, view.dtype.type, [self._slot_numbers], view.address)
        self._copier.run_with_iobinding(binding)

    def clear(self) -> None:
        """Nothing: it is taken for good."""


def device_copy(ort: ModuleType, array: NDArray[Any], device: str) -> Held:
    """An OrtValue of its own: `ortvalue_from_numpy` would share the array's memory where the device is the CPU."""
    value = Held(ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, device, 0))
    value.update_inplace(array)
    return value


def _copier(ort: ModuleType, device: str, dtype: np.dtype[Any]) -> Held:
    """A graph that copies on the device."""
    from onnx import helper  # noqa: PLC0415 - only where there is a GPU

    kind = helper.np_dtype_to_tensor_dtype(dtype)
    ends = [helper.make_tensor_value_info(name, kind, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "copy", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    with GPU.use():
        return Held(ort.InferenceSession(model.SerializeToString(), providers=[provider]))
