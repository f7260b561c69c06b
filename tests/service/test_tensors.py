"""The memory of a cache: slots are copied and seen where they lie, on a host and on a device, which is the CPU here."""

import ctypes
from typing import Any

import numpy as np
import pytest
from brigantine.session import runtime
from brigantine.tensors import DeviceTensors, HostTensors, Shape, Tensors, View

SHAPE: Shape = (2, 3, 2, 5, 4)


@pytest.fixture(params=["host", "device"])
def tensors(request: pytest.FixtureRequest) -> Tensors:
    """Filled: each number is another one."""
    made = (
        HostTensors(SHAPE, np.float16)
        if request.param == "host"
        else DeviceTensors(runtime(), "cpu", SHAPE, np.float16)
    )
    for layer in range(2):
        seen(made.view(layer, 0, 3))[...] = np.arange(120).reshape(SHAPE[1:]) + 1000 * layer
    return made


def seen(view: View) -> np.ndarray:
    """What lies there."""
    size = int(np.prod(view.shape)) * view.dtype.itemsize
    memory: Any = (ctypes.c_char * size).from_address(view.address)
    return np.frombuffer(memory, view.dtype).reshape(view.shape)


def test_a_view_is_of_the_slots_that_were_asked_for(tensors: Tensors):
    for layer in range(2):
        view = tensors.view(layer, 1, 2)
        assert (view.device, view.shape, view.dtype) == ("cpu", (2, 2, 5, 4), np.float16)
        assert np.array_equal(seen(view), np.arange(40, 120).reshape(2, 2, 5, 4) + 1000 * layer)


def test_a_slot_begins_as_the_one_it_was_copied_from_and_others_stay(tensors: Tensors):
    before = [seen(tensors.view(layer, 0, 3)).copy() for layer in range(2)]

    tensors.copy(0, 2, 3)

    for layer in range(2):
        after = seen(tensors.view(layer, 0, 3))
        assert np.array_equal(after[2, :, :3], before[layer][0, :, :3])
        assert np.array_equal(after[:2], before[layer][:2])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_fresh_memory_is_zero(dtype: type):
    tensors = DeviceTensors(runtime(), "cpu", SHAPE, dtype)
    assert not any(seen(tensors.view(layer, 0, 3)).any() for layer in range(2))
