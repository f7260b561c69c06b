"""What the machine is told before training: memory, threads, device, number format."""

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from .config import Config
from .errors import DeviceError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
MOST_THREADS = 4


@dataclass(frozen=True)
class Runtime:
    """Where and how one run computes."""

    device: torch.device
    dtype: torch.dtype
    """float32, or bfloat16 for the convolutions and products inside the networks; all else stays float32."""
    threads: int

    @property
    def name(self) -> str:
        """The device in words, for the record of the run."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {self.threads} threads)"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which networks run forward."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def choose_runtime(config: Config) -> Runtime:
    """Decide by `config` and by what the machine can do. Changes nothing; `apply_runtime` does.

    Raises:
        DeviceError: the configuration insists on CUDA, and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device='cuda': this torch sees no CUDA device. Use --set device=auto or cpu.")
    cuda = config.device != "cpu" and torch.cuda.is_available()
    fast_bfloat16 = (
        torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _cpu_multiplies_bfloat16()
    )
    bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and fast_bfloat16)
    return Runtime(
        device=torch.device("cuda" if cuda else "cpu"),
        dtype=torch.bfloat16 if bfloat16 else torch.float32,
        threads=config.threads or default_threads(),
    )


def apply_runtime(runtime: Runtime) -> None:
    """Set threads, allocator and matrix formats for this process."""
    torch.set_num_threads(runtime.threads)
    if runtime.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    _keep_freed_memory()


def default_threads() -> int:
    """All cores of this process, up to MOST_THREADS."""
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


def _cpu_multiplies_bfloat16() -> bool:
    """Without such an instruction bfloat16 is emulated, at a tenth of the speed of float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _keep_freed_memory() -> None:
    """Let glibc reuse big blocks: by default it returns each to the kernel, and every step pays to get it back."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that every glibc takes
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 << 20)
