"""Buckets: the batch sizes of a model on a GPU, each with buffers on the device that stay where they are.

Only what goes in and finished bytes cross the bus.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .binding import EAGER, run_options
from .flops import flops
from .held import Held
from .model import Arrays, Model, TensorSpec
from .turns import GPU

__all__ = ["Buckets"]

_REPETITIONS = 3
_FILLING_FLOPS = 16e9
"""What is computed in one run where the size of a batch sways bits: a millisecond of a large GPU in float32."""


class Buckets:
    """Batches of 1, 2, 4 ... up to the model's largest, each with its own buffers on the device."""

    def __init__(
        self, ort: ModuleType, engine: Any, model: Model, device: str, recorded: bool = True
    ) -> None:
        largest = model.manifest.max_batch
        self.sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest] + [largest]
        self._lock = threading.Lock()  # a recorded graph has one set of addresses
        self.buckets: dict[int, _Bucket] = {}
        for size in reversed(self.sizes):  # the largest first: the arena then has room for all others
            with GPU.use():
                bucket = self.buckets[size] = _Bucket(ort, engine, model, device, size, recorded)
            with GPU.record() if recorded else GPU.use():
                bucket.warm_up()
        self._keep_agreeing(model)

    def _keep_agreeing(self, model: Model) -> None:
        """Keep all sizes where all make the same bits of a row; else one that fills a GPU, and what agrees with it.

        A kernel may be chosen by the size of the batch and round in another way. A batch goes to the next size that is
        kept, or in parts through the largest. What is kept must not depend on a clock: the bits are to be the same
        after a restart.
        """
        rng = np.random.default_rng(0)
        rows = {spec.name: _noise(rng, spec, self.sizes[-1]) for spec in model.manifest.inputs}
        self.reproducible = all(map(partial(self._repeats, rows), self.sizes))
        """Whether the same batch gave the same bits again: a kernel may add up in any order."""
        all_sizes, self.sizes = self.sizes, self._agreeing(self.sizes[-1], rows)
        if self.sizes != all_sizes:
            per_row = flops(model.graph)
            filling = next((size for size in all_sizes if size * per_row >= _FILLING_FLOPS), all_sizes[-1])
            self.sizes = self._agreeing(filling, rows)
        self.buckets = {size: self.buckets[size] for size in self.sizes}

    def _repeats(self, rows: Arrays, size: int) -> bool:
        part = _part(rows, 0, size)
        first = self._run(part, [size])
        return all(_same(self._run(part, [size]), first) for _ in range(_REPETITIONS))

    def _agreeing(self, chosen: int, rows: Arrays) -> list[int]:
        """The sizes in which each row has the bits that it has in batches of the one that is chosen, which is one."""
        expected = self._run(rows, [chosen])
        made = {size: self._run(_part(rows, 0, size), [size]) for size in self.buckets}
        agreeing = (size for size in made if _same(made[size], _part(expected, 0, size)))
        return sorted({chosen, *agreeing})

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
        return self._run(arrays, self.sizes)

    def _run(self, arrays: Arrays, sizes: Sequence[int]) -> dict[str, NDArray[Any]]:
        rows = len(next(iter(arrays.values())))
        parts: list[dict[str, NDArray[Any]]] = []
        with self._lock, GPU.use():
            for start in range(0, rows, sizes[-1]):
                count = min(sizes[-1], rows - start)
                size = next(size for size in sizes if size >= count)
                parts.append(self.buckets[size].run(_part(arrays, start, start + count), count))
        return parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


class _Bucket:
    """One batch size: its buffers, bound once, and on CUDA the graph that is recorded at the first run."""

    def __init__(
        self, ort: ModuleType, engine: Any, model: Model, device: str, size: int, recorded: bool
    ) -> None:
        def buffer(spec: TensorSpec) -> Any:
            shape = [size, *spec.shape[1:]]
            return Held(ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(spec.dtype), device, 0))

        self._engine = engine
        self._shares_memory = device == "cpu"
        self._binding = Held(engine.io_binding())
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
        self._recorded = recorded
        self._options = run_options(ort, str(size) if recorded else EAGER)

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
            expected, got = [rows, *staging.shape[1:]], list(arrays[name].shape)
            if got != expected:
                raise ValueError(f"input {name}: expected the shape {expected}, got {got}")
            staging[:rows] = arrays[name]
            staging[rows:] = 0
            self._inputs[name].update_inplace(staging)
            if not self._recorded:  # what a node on the CPU reads is copied when it is bound
                self._binding.bind_ortvalue_input(name, self._inputs[name])
        self.replay()
        made = {name: value.numpy()[:rows] for name, value in self._outputs.items()}  # a copy, from a GPU
        return {name: values.copy() for name, values in made.items()} if self._shares_memory else made


def _noise(rng: np.random.Generator, spec: TensorSpec, rows: int) -> NDArray[Any]:
    """Any input: normal numbers, or the first index where whole ones are wanted."""
    shape = (rows, *map(int, spec.shape[1:]))
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return rng.standard_normal(shape).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)


def _part(rows: Arrays, start: int, end: int) -> Arrays:
    return {name: values[start:end] for name, values in rows.items()}


def _same(one: Arrays, other: Arrays) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)
