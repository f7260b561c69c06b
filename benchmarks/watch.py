"""What the processor did in a window: for the server, for us, and for others."""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_S = os.sysconf("SC_CLK_TCK")
_CPUS = os.cpu_count() or 1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.025
_WARM_TURNS, _TURNS = 3000, 1500
"""Of a loop, to have it in the caches and to time it: some 0.1 and 0.05 ms."""


@dataclass
class Usage:
    """Seconds of CPU time in a window."""

    wall_s: float = 0.0
    server_s: float = 0.0
    ours_s: float = 0.0
    """Ours and the load generator's."""
    others_s: float = 0.0
    """Everybody else's, and what the hypervisor kept from us."""
    turn_ns: float = 0.0
    """CPU time of a turn of a small loop, the mean of many looks: how fast the processor was. A virtual one can be
    slower for seconds, by what others do on the other half of its core, without anybody being told."""

    @property
    def foreign(self) -> float:
        """The share of the whole machine that went to others, 0..1."""
        return max(0.0, self.others_s) / (self.wall_s * _CPUS)


def adopt_orphans() -> None:
    """Make us the parent of every descendant whose parent ended, so that none of them is lost from sight."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def watching() -> Iterator[Usage]:
    """Fill in a Usage over the block. The load generator must start and end within it."""
    usage = Usage()
    begin, before = time.monotonic(), _read()
    with _timing() as looks_ns:
        yield usage
    after = _read()
    usage.turn_ns = statistics.mean(looks_ns)
    usage.wall_s = time.monotonic() - begin
    busy, usage.server_s, usage.ours_s = (b - a for a, b in zip(before, after, strict=True))
    usage.others_s = busy - usage.server_s - usage.ours_s


@contextmanager
def _timing() -> Iterator[list[float]]:
    """Time the loop now and then, in a thread: in nanoseconds a turn."""
    looks_ns: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not looks_ns or not over.wait(_LOOK_S):
            _turn(_WARM_TURNS)
            begin_ns = time.thread_time_ns()  # what it waits for a core or the interpreter does not count
            _turn(_TURNS)
            looks_ns.append((time.thread_time_ns() - begin_ns) / _TURNS)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks_ns
    finally:
        over.set()
        thread.join()


def _turn(times: int) -> None:
    total = 0
    for number in range(times):
        total += number * number


def server_tree() -> list[int]:
    """Our descendants while no load generator runs: the server, and what it left to us."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def resident_mib(pids: list[int]) -> float:
    """Resident memory; pages that several processes share are counted in each of them."""
    pages = 0
    for pid in pids:
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE / 2**20


def _read() -> tuple[float, float, float]:
    """Seconds since some start: the busy machine, the server's tree, and us with the children that ended."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    times = os.times()
    ours = times.user + times.system + times.children_user + times.children_system
    spent = sum(
        sum(map(int, stat[11:15])) for stat in map(_stat, server_tree()) if stat
    )  # with children that ended
    return (user + nice + system + irq + softirq + steal) / _TICKS_S, spent / _TICKS_S, ours


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
