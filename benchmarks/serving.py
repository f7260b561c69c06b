"""The product beside other model servers: the same model, the same work, the same machine, one after the other.

    python benchmarks/serving.py --home DIR --model g64 --out g64.jsonl
    python benchmarks/serving.py --report g64.jsonl

In each round each server is started, asked for pictures that are compared with those drawn without a server, warmed,
measured in every cell, and stopped. Every server answers on the loopback interface; `wrk` must be installed.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import httpx
import numpy as np
from generators import CHANNELS, make
from load import MAGIC, Measured, Target, closed, open_loop
from peers.core import Painter
from PIL import Image
from report import MOST_FOREIGN, is_clean, report
from servers import PRODUCT, SERVERS, SHARED, Server, ServerFailed, ask, differences, install, running
from watch import adopt_orphans, watching

MNIST = Path(__file__).parent.parent / "plugins/brigantine_image/models/mnist"
CONNECTIONS = (1, 8, 32, 64)
LOADS = (0.5, 0.7, 0.9)
"""Of what the server did in its best clean window of the closed loop of the same round."""
BATCHES = (1, 8, 16, 32)
_CHECKED, _AT_ONCE = 64, 16
_WARM_S = 2
_TRIES = 3
_SEEDS_A_WINDOW = 1_000_000


@dataclass
class Bench:
    """What all rounds share."""

    model: Path
    home: Path
    seconds: int
    with_open: bool
    out: TextIO
    painter: Painter
    records: list[dict[str, Any]] = field(default_factory=list)
    seeds: Iterator[int] = field(default_factory=lambda: itertools.count(0, _SEEDS_A_WINDOW))

    def write(self, kind: str, **fields: Any) -> dict[str, Any]:
        record = {"kind": kind, **fields}
        self.records.append(record)
        print(json.dumps(record), file=self.out, flush=True)
        return record

    def window(self, load: Callable[[int], Measured], **cell: Any) -> dict[str, Any]:
        """Measure one window, with what the processor did meanwhile."""
        with watching() as usage:
            measured = load(next(self.seeds))
        spent_s = usage.ours_s if cell["server"] == "ceiling" else usage.server_s
        cpu_ms, client_ms = (1e3 * s / max(measured.requests, 1) for s in (spent_s, usage.ours_s))
        print(
            f"  {cell['server']} {cell['loop']} {cell['cell']}: {measured.rps:.0f}/s, p50 {measured.p50_ms:.1f} ms, "
            f"p99 {measured.p99_ms:.1f} ms, {measured.errors} errors, {usage.foreign:.1%} foreign, "
            f"{usage.turn_ns:.0f} ns a turn",
            file=sys.stderr,
        )
        return self.write(
            "window", **cell, rps=measured.rps, **measured._asdict(),
            cpu_ms=cpu_ms, client_ms=client_ms, foreign=usage.foreign,
            turn_ns=usage.turn_ns,
        )  # fmt: skip


def visit(bench: Bench, server: Server, place: dict[str, Any]) -> None:
    """Start one server, measure it in every cell, and stop it."""
    try:
        with running(server, bench.model, place["workers"], bench.home) as up:
            check(bench.painter, up.target, next(bench.seeds), exact=server.name != PRODUCT.name)
            closed(up.target, 32, _WARM_S, next(bench.seeds))
            windows = [
                bench.window(
                    lambda seed, n=n: closed(up.target, n, bench.seconds, seed),
                    **place, server=server.name, loop="closed", cell=n,
                )
                for n in CONNECTIONS
            ]  # fmt: skip
            best = max(windows, key=lambda window: (window["foreign"] <= MOST_FOREIGN, window["rps"]))
            for share in LOADS if bench.with_open and best["rps"] else ():
                load_open(bench, up.target, best, share, {**place, "server": server.name})
            bench.write(
                "visit", **place, server=server.name, start_s=up.start_s, resident_mib=up.resident_mib
            )
    except (ServerFailed, RuntimeError, subprocess.TimeoutExpired, httpx.HTTPError) as error:
        fail(bench, server, str(error) or repr(error), place)


def load_open(
    bench: Bench, target: Target, best: dict[str, Any], share: float, place: dict[str, Any]
) -> None:
    """An open loop at a share of what was done in the window `best`; again where that says nothing (`is_clean`)."""
    offered = share * best["rps"]
    for _ in range(_TRIES):
        window = bench.window(
            lambda seed: open_loop(target, offered, bench.seconds, seed),
            **place, loop="open", cell=share, offered=offered, best_turn_ns=best["turn_ns"],
        )  # fmt: skip
        if is_clean(window):
            return


def fail(bench: Bench, server: Server, reason: str, place: dict[str, Any]) -> None:
    print(f"FAILED {server.name} {place}: {reason}", file=sys.stderr)
    bench.write("failure", **place, server=server.name, reason=reason)


def check(painter: Painter, target: Target, seed: int, exact: bool) -> None:
    """Every picture that a server draws under load is the one that is drawn alone, without a server.

    Args:
        painter: draws it alone.
        target: the server.
        seed: of the first picture.
        exact: every value must be the same. The product's rounding is its own: one value of a picture, or one in a
            thousand, may be off by 1 of 255.

    Raises:
        ServerFailed: a picture is missing or another one.
    """
    seeds = range(seed, seed + _CHECKED)
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda one: ask(client, target, one), seeds))
    wrong = [
        one for one, answer in zip(seeds, answers, strict=True) if not is_picture(painter, one, answer, exact)
    ]
    if wrong:
        raise ServerFailed(
            f"{len(wrong)} of {_CHECKED} pictures are wrong, the first that of seed {wrong[0]}"
        )


def is_picture(painter: Painter, seed: int, answer: str, exact: bool) -> bool:
    [expected] = painter.pixels([seed])
    found = re.search(f'{MAGIC}[^"]*', answer)
    if found is None:
        return False
    try:
        body = base64.b64decode(found[0].replace("\\/", "/"))
        pixels = np.asarray(Image.open(io.BytesIO(body))).reshape(expected.shape)
    except (OSError, ValueError):  # no base64, no PNG, or of another size
        return False
    off = np.abs(pixels.astype(int) - expected)
    return off.max() <= 1 and off.sum() <= (0 if exact else max(1, off.size // 1000))


def ceiling(painter: Painter, threads: int, batch: int, seconds: float, seed: int) -> Measured:
    """What the same work comes to without a server: threads that do nothing else."""
    begin = time.perf_counter()

    def paint(first: int) -> list[float]:
        times: list[float] = []
        while time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            painter.paint(range(first + batch * len(times), first + batch * (len(times) + 1)))
            times.append(time.perf_counter() - start)
        return times

    with ThreadPoolExecutor(threads) as pool:
        starts = [seed + i * _SEEDS_A_WINDOW // threads for i in range(threads)]
        times = [one for part in pool.map(paint, starts) for one in part]
    took_s = time.perf_counter() - begin
    p50, p90, p99, p999 = (1e3 * np.percentile(times, (50, 90, 99, 99.9))).tolist()
    return Measured(batch * len(times), 0, took_s, p50, p90, p99, p999)


def best_batch(painter: Painter, threads: int) -> int:
    return max(BATCHES, key=lambda batch: ceiling(painter, threads, batch, 1.0, 0).rps)


def model_folder(name: str, home: Path) -> Path:
    """A model's folder, by the name of a model that is shipped or made here, or by its path."""
    if name == "mnist":
        return MNIST
    if name in CHANNELS:
        return make(name, home / "models" / name)  # alone in its folder: the product serves all of a folder
    return Path(name).resolve()


def run(bench: Bench, servers: list[Server], workers: list[int], rounds: int) -> None:
    there: list[Server] = []
    for server in servers:
        try:
            install(server, bench.home)
            there.append(server)
        except ServerFailed as error:
            for count in workers:
                fail(bench, server, str(error), {"round": 0, "workers": count})
    batches = {count: best_batch(bench.painter, count) for count in workers}
    bench.write("run", **facts(bench, servers), rounds=rounds, batches=batches)
    for number, count in itertools.product(range(rounds), workers):
        place = {"round": number + 1, "workers": count}
        print(f"round {number + 1} of {rounds}, {count} worker(s)", file=sys.stderr)
        bench.window(
            lambda seed, count=count: ceiling(bench.painter, count, batches[count], bench.seconds, seed),
            **place, server="ceiling", loop="closed", cell="ceiling",
        )  # fmt: skip
        first = number % len(there) if there else 0
        for server in there[first:] + there[:first]:
            visit(bench, server, place)


def facts(bench: Bench, servers: list[Server]) -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "model": bench.model.name,
        "seconds": bench.seconds,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu[1] if cpu else platform.machine(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in SHARED},
        "differences": {server.name: found for server in servers if (found := differences(server))},
        "connections": CONNECTIONS,
        "loads": LOADS,
        "servers": [server.name for server in servers],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--home", type=Path, default=Path("~/.cache/brigantine-bench"), help="environments and logs"
    )
    parser.add_argument("--model", default="mnist", help="mnist, g64, g256, or a model's folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each window")
    parser.add_argument("--only", help=f"some of {','.join(server.name for server in SERVERS)}")
    parser.add_argument("--workers", choices=["1", "2", "both"], default="both")
    parser.add_argument(
        "--open", action=argparse.BooleanOptionalAction, default=True, help="the open loop too"
    )
    parser.add_argument("--out", type=Path, help="where the raw windows go, as JSON lines")
    parser.add_argument("--report", type=Path, help="print the tables of such a file, and measure nothing")
    options = parser.parse_args()
    if options.report:
        print(report([json.loads(line) for line in options.report.read_text().splitlines()]))
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk: expected it to be installed; `apt-get install wrk`, or your system's way")
    names = options.only.split(",") if options.only else [server.name for server in SERVERS]
    if unknown := set(names) - {server.name for server in SERVERS}:
        raise SystemExit(
            f"--only: expected some of {', '.join(s.name for s in SERVERS)}, got {', '.join(unknown)}"
        )
    servers = [server for server in SERVERS if server.name in names]
    workers = [1, 2] if options.workers == "both" else [int(options.workers)]
    home = options.home.expanduser().resolve()
    home.mkdir(parents=True, exist_ok=True)
    model = model_folder(options.model, home)
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through every `finally`
    with (options.out or home / f"{model.name}.jsonl").open("w") as out:
        bench = Bench(model, home, options.seconds, options.open, out, Painter(model))
        run(bench, servers, workers, options.rounds)
    print(report(bench.records))
    if any(record["kind"] == "failure" for record in bench.records):
        sys.exit(1)


if __name__ == "__main__":
    main()
