"""Two processes that run one model at once, with weights of their own and with the same: `python benchmarks/weights.py`

Each takes steps of a language model, or draws batches of a generator, as a worker of the service does.
"""

from __future__ import annotations

import atexit
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from brigantine.decoder import Decoder
from brigantine.model import Model
from brigantine.pages import use_huge_pages
from brigantine.session import Session, SessionOptions
from brigantine.shared import Shared
from brigantine.store import Store

ROUNDS = 7
CASES = (("shakespeare", 1), ("shakespeare", 8), ("mnist", 1), ("mnist", 16))
_SECONDS = 1.0
_CONTEXT = 256


def step(model: Model, rows: int) -> Callable[[], object]:
    """What runs the graph on so many rows."""
    session = Session.open(model, SessionOptions(device="cpu"))
    if model.name == "mnist":
        rng = np.random.default_rng(0)
        given = {
            "z": rng.standard_normal((rows, 100), np.float32),
            "label": rng.integers(10, size=rows),
        }
        return lambda: session.run(given)
    decoder = Decoder(session, _CONTEXT)
    taken = [decoder.place([row + 1, 2, 3], reuse=False) for row in range(rows)]
    places = [found[0] for found in taken if found is not None]
    return lambda: decoder.decode(places, [7] * rows, [_CONTEXT // 2] * rows)


def work(name: str, rows: int) -> None:
    """Say when all is loaded, and, told to begin, how many microseconds a step takes."""
    run = step(Model.open(Store().find()[name].path), rows)
    use_huge_pages()
    run()
    print("ready", flush=True)
    input()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while (begin := time.perf_counter()) < end:
        run()
        times.append(time.perf_counter() - begin)
    print(1e6 * statistics.median(times), flush=True)


def measured(name: str, rows: int, processes: int, environment: dict[str, str]) -> float:
    """Microseconds of a step, the mean over processes that take theirs at the same time."""
    command = [sys.executable, __file__, name, str(rows)]
    begun = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    try:
        for one in begun:
            assert one.stdout is not None and one.stdout.readline() == "ready\n", "it has loaded its model"
        for one in begun:
            assert one.stdin is not None
            print(file=one.stdin, flush=True)
        return statistics.mean(float(one.communicate(timeout=60)[0]) for one in begun)
    finally:
        for one in begun:
            one.kill()
            one.wait()


def main() -> None:
    if len(sys.argv) > 1:
        work(sys.argv[1], int(sys.argv[2]))
        return
    own = dict(os.environ)
    shared = Shared.create()
    atexit.register(shutil.rmtree, shared.folder)
    shared.weights.mkdir()
    print("| model | rows | one process, us | two, each with its own | two with the same | share |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rows in CASES:
        ways = ((1, own), (2, own), (2, dict(os.environ)))
        times: list[list[float]] = []
        for number in range(ROUNDS):
            order = (0, 1, 2) if number % 2 else (2, 1, 0)
            made = {way: measured(name, rows, *ways[way]) for way in order}
            times.append([made[way] for way in range(len(ways))])
        alone, before, after = (statistics.median(column) for column in zip(*times, strict=True))
        share = statistics.median(three[2] / three[1] for three in times)
        print(f"| {name} | {rows} | {alone:.0f} | {before:.0f} | {after:.0f} | {share:.2f} |")


if __name__ == "__main__":
    main()
