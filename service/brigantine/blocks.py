"""Blocks: whether ONNX Runtime attends in blocks, for which it asks the environment when it opens a graph."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["attending", "environment"]

_SWITCH = "ORT_GQA_DISABLE_FLASH_ATTENTION"
_given = os.environ.get(_SWITCH)
"""What whoever started this process has said, who is obeyed."""
_PATIENCE_S = 10.0
_changed = threading.Condition()
_opening = {True: 0, False: 0}
"""Graphs that are being opened: those that shall attend in blocks, and the others."""


@contextmanager
def attending(in_blocks: bool) -> Generator[None]:
    """While a graph with attention is opened, beside others only that attend like it.

    Else its bits would depend on which these are. One that takes longer than some seconds is not waited for.
    """
    with _changed:
        _changed.wait_for(lambda: not _opening[not in_blocks], _PATIENCE_S)
        _count(in_blocks, 1)
    try:
        yield
    finally:
        with _changed:
            _count(in_blocks, -1)
            _changed.notify_all()


def environment() -> dict[str, str]:
    """That of this process, as whoever started it has set it: for one that is started while graphs are opened."""
    return {name: value for name, value in os.environ.items() if name != _SWITCH or _given is not None}


def _count(in_blocks: bool, one: int) -> None:
    _opening[in_blocks] += one
    if _given is not None:
        return
    if _opening[False]:
        os.environ[_SWITCH] = "1"
    else:
        os.environ.pop(_SWITCH, None)
