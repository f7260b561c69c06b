"""Workers with an engine each beside front ends that hand their work to an engine in another process.

    python benchmarks/workers.py [--rounds 5] [--seconds 3] [--home ~/.cache/brigantine-bench]

Two models on the loopback interface, with 64 clients of wrk, which must be installed; some 3 minutes. Prints a table:
what two cores answer, what an answer costs, and the memory, with pages that processes share counted once.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from generators import make
from load import closed
from servers import PRODUCT, Running, running
from serving import MNIST
from watch import adopt_orphans, server_tree, watching

_CONNECTIONS = 64
_WARM_S = 2
_WAYS = {
    "2 workers, an engine each": {"BRIGANTINE_WORKERS": "2"},
    "1 worker with its engine": {"BRIGANTINE_WORKERS": "1"},
    "1 front end, 1 engine in a process of its own": {
        "BRIGANTINE_WORKERS": "1",
        "BRIGANTINE_ISOLATE": "image",
    },
    "2 front ends, 2 engines in processes of their own": {
        "BRIGANTINE_WORKERS": "2",
        "BRIGANTINE_ISOLATE": "image",
    },
}


class Window(NamedTuple):
    """What one way did in one window."""

    rps: float
    p99_ms: float
    cpu_ms: float
    """The server's CPU time of each answer."""


def proportional_mib(pids: Sequence[int]) -> float:
    """Memory in which a page that several processes share counts once."""
    found = [re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M) for pid in pids]
    return sum(int(one[1]) for one in found if one) / 1024


def measure(up: Running, seconds: int, seed: int) -> Window:
    """One window; the other ways are at rest meanwhile."""
    with watching() as usage:
        made = closed(up.target, _CONNECTIONS, seconds, seed)
    return Window(made.rps, made.p99_ms, 1e3 * usage.server_s / made.requests)


def compare(model: Path, home: Path, rounds: int, seconds: int) -> None:
    """All ways side by side, in turns; prints their rows."""
    with ExitStack() as servers:
        ups: dict[str, Running] = {}
        memory: dict[str, float] = {}
        for name, environment in _WAYS.items():
            before = set(server_tree())
            server = replace(PRODUCT, environment={**PRODUCT.environment, **environment})
            ups[name] = servers.enter_context(running(server, model, 2, home / "workers" / str(len(ups))))
            closed(ups[name].target, _CONNECTIONS, _WARM_S, 0)
            memory[name] = proportional_mib(sorted(set(server_tree()) - before))
        windows: dict[str, list[Window]] = {name: [] for name in ups}
        for number in range(rounds):
            for name, up in ups.items():
                windows[name].append(measure(up, seconds, number * 1_000_000))
    for name, made in windows.items():
        rates = [one.rps for one in made]
        cells = (
            f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})",
            f"{statistics.median(one.p99_ms for one in made):.0f}",
            f"{statistics.median(one.cpu_ms for one in made):.2f}",
            f"{memory[name]:.0f}",
        )
        print(f"| {model.name} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--home", type=Path, default=Path("~/.cache/brigantine-bench"), help="models and logs"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="how long a window is")
    options = parser.parse_args()
    adopt_orphans()
    home = options.home.expanduser().resolve()
    print("| model | processes | requests/s (least to most) | p99 ms | CPU-ms/request | MiB |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for model in (MNIST, make("g64", home / "models" / "g64")):
        compare(model, home, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
