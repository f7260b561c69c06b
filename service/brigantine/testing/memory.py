"""The rule about memory: what stays after each call.

A leak grows in every window; a cache that fills, or an arena that grows, does so in some. So the window that grew least
is judged.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .finding import Breach
from .journey import Wish, make
from .rule import Rule
from .subject import Subject

__all__ = ["RULES"]

_WINDOWS = 4
_LEAST_CALLS = 8
"""In a window; with fewer there is nothing to judge."""
_CALL_BYTES = 512
"""Half a KiB for each call is a leak, if it stays."""
_LEAST_BYTES = 16_384
"""Less than this is what Python and malloc keep for themselves now and then."""
_STATM = Path("/proc/self/statm")
_MALLINFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _Malloc(ctypes.Structure):
    """glibc's `struct mallinfo2`, see mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO]


class _Usage(NamedTuple):
    """What is held after so many calls."""

    calls: int
    python: int
    """Bytes that Python and numpy have allocated since the trace began."""
    native: int
    """Bytes that malloc has given out; the resident ones where it does not say, and 0 where nobody does."""


def _memory(subject: Subject) -> Iterator[Breach]:
    """Over 1,000 calls, after some to warm up, the memory stays flat."""
    mine = not tracemalloc.is_tracing()
    if mine:
        tracemalloc.start()
    try:
        usages, culprit = _watch(subject)
    finally:
        if mine:
            tracemalloc.stop()
    windows = list(itertools.pairwise(usages))
    python = min(((b.python - a.python) / (b.calls - a.calls) for a, b in windows), default=0.0)
    native = min(((b.native - a.native) / (b.calls - a.calls) for a, b in windows), default=0.0)
    calls = min((b.calls - a.calls for a, b in windows), default=0)
    least = max(_CALL_BYTES, _LEAST_BYTES / max(1, calls))
    expected = f"memory that stays flat over {usages[-1].calls} calls"
    if python > least:
        got = f"{python / 1024:.1f} KiB more for each call{culprit}"
        yield Breach(
            subject.said, expected, got, "keep nothing of a row after it is rendered; give a cache a size"
        )
    elif native > least:
        got = f"{native / 1024:.1f} KiB more for each call, outside of Python"
        yield Breach(
            subject.said, expected, got, "free what a native library has made before the row is gone"
        )


def _watch(subject: Subject) -> tuple[list[_Usage], str]:
    """The usage between the windows, and the line that holds most of what has come since the first."""
    plugin, request = subject.plugin(), subject.request()
    calls = 0

    def call(most: int, seconds: float) -> None:
        nonlocal calls
        end = time.perf_counter() + seconds
        for _ in range(most):
            make(plugin, [Wish(request, calls)])
            calls += 1
            if time.perf_counter() > end:
                return

    each_s = subject.patience_s / (_WINDOWS + 1)
    call(max(_LEAST_CALLS, subject.calls // 10), each_s)
    usages = [_usage(calls)]
    first = tracemalloc.take_snapshot()
    for _ in range(_WINDOWS):
        call(max(1, subject.calls // _WINDOWS), each_s)
        usages.append(_usage(calls))
    culprit = _culprit(first, tracemalloc.take_snapshot())
    slow = any(b.calls - a.calls < _LEAST_CALLS for a, b in itertools.pairwise(usages))
    return (usages[-1:] if slow else usages), culprit


def _usage(calls: int) -> _Usage:
    gc.collect()
    return _Usage(calls, tracemalloc.get_traced_memory()[0], _native())


def _native() -> int:
    if sys.platform != "linux":
        return 0
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # a libc other than glibc, or one from before 2.33
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    mallinfo.restype = _Malloc
    info = mallinfo()
    return info.uordblks + info.hblkhd


def _culprit(first: tracemalloc.Snapshot, last: tracemalloc.Snapshot) -> str:
    ours = tracemalloc.Filter(inclusive=False, filename_pattern=tracemalloc.__file__)
    most = last.filter_traces([ours]).compare_to(first.filter_traces([ours]), "lineno")[:1]
    return "".join(
        f", most of it from {Path(one.traceback[0].filename).name}:{one.traceback[0].lineno}" for one in most
    )


RULES = (Rule("memory", "row", _memory),)
