"""Huge pages: where a model's weights lie.

A step of a language model reads every weight. In pages of 4 KiB the processor has thousands of addresses to look up
for that, in pages of 2 MiB a few. Linux 6.1 and later move what is there into such pages for who asks, whatever the
settings of the system say (madvise(2), MADV_COLLAPSE).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["use_huge_pages"]

_MAPS, _PAGES = Path("/proc/self/maps"), Path("/proc/self/pagemap")
_PAGE, _HUGE = mmap.PAGESIZE, 2**21
_COLLAPSE = 25
_PRESENT, _OWN = np.uint64(1 << 63), np.uint64(1 << 56)
_FULL = 0.9
"""The share of a huge page's memory that must be in use: what is not would be filled with zeros."""


def use_huge_pages() -> int:
    """Move large amounts of memory that are in use into huge pages; how many bytes could be.

    What this process shares with the one it was forked of stays shared. Where the system has no huge pages, or none
    left, everything stays where it is.
    """
    libc = ctypes.CDLL(None)
    try:
        ranges = list(_ranges(_MAPS.read_text().splitlines()))
        with _PAGES.open("rb") as table:
            places = [place for begin, end in ranges for place in _full(table, begin, end)]
    except OSError:  # another system
        return 0
    return _HUGE * sum(_collapsed(libc, place) for place in places)


def _ranges(lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    """The huge pages' addresses in memory that no file is behind, by the text of proc_pid_maps(5)."""
    for line in lines:
        addresses, rights, _, _, inode, *_ = line.split()  # 7f5c8a000000-7f5c8b000000 rw-p 00000000 00:00 0
        begin, end = (int(address, 16) for address in addresses.split("-"))
        begin, end = -(-begin // _HUGE) * _HUGE, end // _HUGE * _HUGE
        if rights.startswith("rw") and inode == "0" and begin < end:
            yield begin, end


def _full(table: BinaryIO, begin: int, end: int) -> list[int]:
    """Where in a range most pages are in use, by this process alone (proc_pid_pagemap(5))."""
    table.seek(begin // _PAGE * 8)
    entries = np.frombuffer(table.read((end - begin) // _PAGE * 8), np.uint64)
    own = (entries & _PRESENT != 0) & (entries & _OWN != 0)
    shares = np.reshape(own, (-1, _HUGE // _PAGE)).mean(axis=1)
    return [begin + _HUGE * int(place) for place in np.flatnonzero(shares >= _FULL)]


def _collapsed(libc: ctypes.CDLL, start: int) -> bool:
    return not libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(_HUGE), _COLLAPSE)
