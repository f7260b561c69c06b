"""Weights: a model's graph as all workers of a service map it into their memory.

ONNX Runtime lays a graph's weights out anew for its kernels, in each process. Here one process has it write them into a
file as they are then, and all of them map that. So they are once in memory, and once in the processor's cache, for
which workers that run the same model would else compete (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["keep", "written"]

_FILE = "weights"
_LEAST_BYTES = 2**16
"""Smaller ones are left within the graph, of which each process has a copy."""
_ALIGNMENT = 64
"""Bytes: what ONNX Runtime allocates begins at a multiple of it, and its kernels may count on that."""
_PATIENCE_S = 20.0
"""How long a process waits for another one that writes."""
_TICK_S = 0.005


def keep(options: Any, graph: Path) -> None:
    """Have a session with these `options` write its graph to a file, with its weights as its kernels read them."""
    options.optimized_model_filepath = str(graph)
    for name, value in {
        "session.save_external_prepacked_constant_initializers": "1",
        "session.optimized_model_external_initializers_file_name": _FILE,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_LEAST_BYTES),
    }.items():
        options.add_session_config_entry(name, value)


def written(folder: Path, size: int, write: Callable[[Path], object]) -> Path:
    """The graph in `folder`, which `write` has put there, in this process now or in another one before.

    What lies beside `folder` is removed, that of a model which was replaced; who has mapped it keeps it.

    Args:
        folder: where it is to be. Its parent is the model's own.
        size: bytes that must be free there.
        write: is given a folder in which to put one graph, by way of `keep`.

    Raises:
        OSError: there is no room, another process takes too long, or could not do it.
        ValueError: the graph's weights do not lie where kernels expect them.
        Exception: as `write` does.
    """
    folder.parent.mkdir(exist_ok=True)
    refused = folder.with_suffix(".refused")
    with _alone(folder.parent):
        if refused.exists():
            raise OSError(refused.read_text())
        if not folder.exists():
            try:
                _make(folder, size, write)
            except Exception as error:
                refused.write_text(str(error))  # to find it out takes the others as long as to load it twice
                raise
        [graph] = folder.glob("*.onnx")
    return graph


def _make(folder: Path, size: int, write: Callable[[Path], object]) -> None:
    for other in folder.parent.iterdir():
        shutil.rmtree(other) if other.is_dir() else other.unlink()
    free = shutil.disk_usage(folder.parent).free
    if free < size:
        raise OSError(f"expected {size} bytes free in {folder.parent}, got {free}; give it more room")
    begun = folder.with_suffix(".begun")
    begun.mkdir()
    try:
        write(begun)
        _check(begun)
        begun.rename(folder)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Within this, no other process or thread is, by a lock that falls when its holder does."""
    held = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(held):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another worker has been at it for {_PATIENCE_S:g} s")
            time.sleep(_TICK_S)
        yield
    finally:
        os.close(held)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check(folder: Path) -> None:
    """That each weight begins at a multiple of `_ALIGNMENT`, as it lies and as a kernel wants it.

    ONNX Runtime puts one behind the other, and notes the second as `operator+hash|offset;length;padding;...`.
    """
    import onnx  # noqa: PLC0415 - heavy, and one process of a service needs it

    [graph] = folder.glob("*.onnx")
    for weight in onnx.load_model_from_string(graph.read_bytes()).graph.initializer:
        for entry in weight.external_data:
            offsets = [entry.value] if entry.key == "offset" else []
            if entry.key.startswith("prepacked"):
                offsets = re.split("[;|]", entry.value.rpartition("+")[2])[1::3]
            if any(int(offset) % _ALIGNMENT for offset in offsets):
                raise ValueError(f"{weight.name} would begin within {_ALIGNMENT} bytes")
