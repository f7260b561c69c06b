"""Huge pages, of this machine's kernel."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from brigantine import pages
from brigantine.pages import use_huge_pages

RELEASE = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
HAS_THEM = Path("/sys/kernel/mm/transparent_hugepage").is_dir()
NEW_ENOUGH = platform.system() == "Linux" and RELEASE >= (6, 1) and HAS_THEM
needs_them = pytest.mark.skipif(
    not NEW_ENOUGH,
    reason=f"needs MADV_COLLAPSE, and this is {platform.system()} {platform.release()}; run it on Linux 6.1 or later, "
    "built with CONFIG_TRANSPARENT_HUGEPAGE",
)

MEMORY = """
import mmap
import re

from brigantine.pages import use_huge_pages


def resident(kind):
    return 1024 * int(re.search(kind + r": +(\\d+)", open("/proc/self/smaps_rollup").read())[1])


full, sparse = (mmap.mmap(-1, 2**26, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
for place in range(0, 2**26, 2**12):
    full[place] = place % 251
for place in range(0, 2**26, 2**20):
    sparse[place] = 1
before = resident("Rss"), resident("AnonHugePages")
moved = use_huge_pages()
assert all(full[place] == place % 251 for place in range(0, 2**26, 2**12))
print(moved, resident("AnonHugePages") - before[1], resident("Rss") - before[0])
"""


@needs_them
def test_what_is_in_use_is_moved_and_nothing_else():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=60
    )

    moved, huge, more = map(int, done.stdout.split())

    assert huge >= moved >= 60 * 2**20  # of 64 MiB, the ends of which are no multiples of a huge page
    assert more < 32 * 2**20  # the sparse 64 MiB have not been filled


def test_the_text_of_the_kernel_is_read():
    text = """\
7f0000001000-7f0000801000 rw-p 00000000 00:00 0
7f0001000000-7f0001800000 r--p 00000000 00:00 0
7f0002000000-7f0002800000 rw-p 00000000 fe:01 1234                       /usr/lib/libx.so
7f0003000000-7f0003001000 rw-p 00000000 00:00 0
558000000000-558000400000 rw-p 00000000 00:00 0                          [heap]
"""

    assert list(pages._ranges(text.splitlines())) == [
        (0x7F0000200000, 0x7F0000800000),
        (0x558000000000, 0x558000400000),
    ]


def test_another_system_goes_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(pages, "_MAPS", tmp_path / "none")

    assert use_huge_pages() == 0


def test_what_is_gone_or_is_refused_stays_where_it_is():
    with Path("/proc/self/pagemap").open("rb") as table:
        assert pages._full(table, 0, 2**22) == []  # nobody's memory
    assert not pages._collapsed(ctypes.CDLL(None), 2**21)


SHARED = (
    MEMORY.partition("before =")[0]
    + """
import os

if not os.fork():
    print(use_huge_pages())
    os._exit(0)
os.wait()
"""
)


@needs_them
def test_what_was_there_before_the_fork_stays_shared():
    done = subprocess.run(
        [sys.executable, "-c", SHARED], capture_output=True, text=True, check=True, timeout=60
    )

    assert int(done.stdout) < 16 * 2**20  # of 64 MiB that are in use
