"""Binding: a graph over tensors that stay where they are, so that each run is only a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from .held import Held
from .tensors import View, device_copy
from .turns import GPU

__all__ = ["EAGER", "bound_on_device", "bound_on_host", "run_options"]

EAGER = "-1"
"""The number of the CUDA graph of a run of which none is made."""


def bound_on_host(
    ort: ModuleType, engine: Any, inputs: Mapping[str, View], outputs: Mapping[str, View]
) -> Callable[[], None]:
    """Each call reads `inputs` and writes `outputs`, all of them arrays."""
    binding = engine.io_binding()
    _bind(binding.bind_input, inputs)
    _bind(binding.bind_output, outputs)
    options = run_options(ort)

    def run(kept: tuple[Any, Any] = (inputs, outputs)) -> None:  # kept: their memory is in use
        engine.run_with_iobinding(binding, options)

    return run


def bound_on_device(
    ort: ModuleType,
    engine: Any,
    device: str,
    inputs: Mapping[str, View],
    outputs: Mapping[str, View],
    graph_id: str = EAGER,
) -> Callable[[], None]:
    """As `bound_on_host`; what is an array crosses the bus in each call, what lies on the device does not.

    Args:
        ort: ONNX Runtime.
        engine: its session.
        device: as it names it.
        inputs: on the device, or arrays.
        outputs: likewise.
        graph_id: makes a CUDA graph of the run, at once: the inputs must be valid. No other binding of the session may
            have this one.
    """
    with GPU.use():
        binding = Held(engine.io_binding())
        sent = _laid(ort, device, inputs, binding.bind_input, binding.bind_ortvalue_input)
        received = _laid(ort, device, outputs, binding.bind_output, binding.bind_ortvalue_output)
    options, recorded = run_options(ort, graph_id), graph_id != EAGER

    def run(kept: tuple[Any, Any] = (inputs, outputs)) -> None:
        with GPU.use():
            for name, value, array in sent:
                value.update_inplace(array)
                if not recorded:  # what a node on the CPU reads is copied when it is bound
                    binding.bind_ortvalue_input(name, value)
            engine.run_with_iobinding(binding, options)
            for _, value, array in received:
                np.copyto(array, value.numpy())

    if recorded:
        with GPU.record():
            for _ in range(2):  # the first allocates, the second is recorded
                engine.run_with_iobinding(binding, options)
    return run


def run_options(ort: ModuleType, graph_id: str = EAGER) -> Any:
    """How one run goes: nothing is recorded of it, unless it has the number of a CUDA graph."""
    options = ort.RunOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and need not be written on stderr, too
    options.add_run_config_entry("gpu_graph_id", graph_id)  # asked for in each run; its absence costs 40 us
    return options


def _laid(
    ort: ModuleType,
    device: str,
    views: Mapping[str, View],
    bind: Callable[..., None],
    bind_value: Callable[..., None],
) -> list[tuple[str, Held, Any]]:
    """Bind all of these; what is to cross the bus: its name, where it lies on the device, and the array."""
    _bind(bind, {name: view for name, view in views.items() if view.device == device})
    crossing = [
        (name, device_copy(ort, view.owner, device), view.owner)
        for name, view in views.items()
        if view.device != device
    ]
    for name, value, _ in crossing:
        bind_value(name, value)
    return crossing


def _bind(bind: Callable[..., None], views: Mapping[str, View]) -> None:
    for name, view in views.items():
        bind(name, view.device, 0, view.dtype.type, view.shape, view.address)
