"""What is decided by the machine."""

from contextlib import nullcontext

import pytest
import torch
from brigantine_training import runtime
from brigantine_training.errors import DeviceError

from tests.training.digits import tiny_config

ON_CPU = not torch.cuda.is_available()


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_taken_where_the_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: torch.dtype
):
    monkeypatch.setattr(runtime, "_cpu_multiplies_bfloat16", lambda: fast)
    assert runtime.choose_runtime(tiny_config(precision="auto")).dtype is dtype


def test_the_precision_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime, "_cpu_multiplies_bfloat16", lambda: True)
    chosen = runtime.choose_runtime(tiny_config(precision="float32"))
    assert chosen.dtype is torch.float32
    assert isinstance(chosen.autocast(), nullcontext)


def test_threads_are_those_asked_for_or_a_few():
    assert runtime.choose_runtime(tiny_config(threads=3)).threads == 3
    assert 1 <= runtime.choose_runtime(tiny_config(threads=0)).threads <= runtime.MOST_THREADS


@pytest.mark.skipif(not ON_CPU, reason="this machine has a CUDA device")
def test_cuda_that_is_not_there_is_an_error():
    with pytest.raises(DeviceError, match="--set device=auto"):
        runtime.choose_runtime(tiny_config(device="cuda"))


def test_applying_sets_the_threads():
    before = torch.get_num_threads()
    try:
        runtime.apply_runtime(runtime.choose_runtime(tiny_config(threads=2)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
