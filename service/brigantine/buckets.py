"""Buckets: the batch sizes of a model on a GPU, each with buffers on the device that stay where they are.

Only what goes in and finished bytes cross the bus.
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import Arrays, Model, TensorSpec

__all__ = ["Buckets"]


class Buckets:
    """Batches of 1, 2, 4 ... up to the model's largest, each with its own buffers on the device."""

    def __init__(self, ort: ModuleType, engine: Any, model: Model, device: str) -> None:
        largest = model.manifest.max_batch
        self.sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest] + [largest]
        self._lock = threading.Lock()  # a recorded graph has one set of addresses
        self.buckets: dict[int, _Bucket] = {}
        for size in reversed(self.sizes):  # the largest first: the arena then has room for all others
            bucket = self.buckets[size] = _Bucket(ort, engine, model, device, size)
            bucket.warm_up()
        self._keep_agreeing(model)

    def _keep_agreeing(self, model: Model) -> None:
        """Drop each size whose rows are not bit for bit those of the largest: its batches go to the next size.

        A kernel may be chosen by the size of the batch and round in another way.
        """
        rng = np.random.default_rng(0)
        rows = {spec.name: _noise(rng, spec, self.sizes[-1]) for spec in model.manifest.inputs}
        expected = self.buckets[self.sizes[-1]].run(rows, self.sizes[-1])

        def agrees(size: int) -> bool:
            made = self.buckets[size].run({name: values[:size] for name, values in rows.items()}, size)
            return all(made[name].tobytes() == expected[name][:size].tobytes() for name in made)

        self.sizes = [size for size in self.sizes if size == self.sizes[-1] or agrees(size)]
        self.buckets = {size: self.buckets[size] for size in self.sizes}

    def size_for(self, rows: int) -> int:
        """The smallest bucket that holds so many rows, or the largest."""
        return next((size for size in self.sizes if size >= rows), self.sizes[-1])

    @staticmethod
    def fit(model: Model) -> bool:
        """Whether all dimensions but the batch are fixed, as buffers that stay in place must be."""
        specs = (*model.manifest.inputs, *model.manifest.outputs)
        return all(isinstance(size, int) for spec in specs for size in spec.shape[1:])

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """As `Session.run`; a batch over the largest bucket is run in parts."""
        rows = len(next(iter(arrays.values())))
        parts: list[dict[str, NDArray[Any]]] = []
        with self._lock:
            for start in range(0, rows, self.sizes[-1]):
                part = {name: values[start : start + self.sizes[-1]] for name, values in arrays.items()}
                size = len(next(iter(part.values())))
                parts.append(self.buckets[self.size_for(size)].run(part, size))
        return parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


class _Bucket:
    """One batch size: its buffers, bound once, and on CUDA the graph that is recorded at the first run."""

    def __init__(self, ort: ModuleType, engine: Any, model: Model, device: str, size: int) -> None:
        def buffer(spec: TensorSpec) -> Any:
            shape = [size, *spec.shape[1:]]
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(spec.dtype), device, 0)

        self._engine = engine
        self._binding = engine.io_binding()
        self._inputs = {spec.name: buffer(spec) for spec in model.manifest.inputs}
        self._outputs = {spec.name: buffer(spec) for spec in model.manifest.outputs}
        # What the rows are copied into, so that the copy to the device is one, and padding is zero.
        self._staging = {
            spec.name: np.zeros([size, *map(int, spec.shape[1:])], spec.dtype)
            for spec in model.manifest.inputs
        }
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._options = ort.RunOptions()
        if device == "cuda":
            self._options.add_run_config_entry("gpu_graph_id", str(size))

    def warm_up(self) -> None:
        """Two runs on zeros (fresh device memory holds anything): the first allocates, the second is recorded."""
        for name, staging in self._staging.items():
            self._inputs[name].update_inplace(staging)
        for _ in range(2):
            self.replay()

    def replay(self) -> None:
        """Run on what is in the buffers, with nothing crossing the bus."""
        self._engine.run_with_iobinding(self._binding, self._options)

    def run(self, arrays: Arrays, rows: int) -> dict[str, NDArray[Any]]:
        for name, staging in self._staging.items():
            staging[:rows] = arrays[name]
            staging[rows:] = 0
            self._inputs[name].update_inplace(staging)
        self.replay()
        return {name: value.numpy()[:rows].copy() for name, value in self._outputs.items()}


def _noise(rng: np.random.Generator, spec: TensorSpec, rows: int) -> NDArray[Any]:
    """Any input: normal numbers, or the first index where whole ones are wanted."""
    shape = (rows, *map(int, spec.shape[1:]))
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return rng.standard_normal(shape).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)
