"""What only time shows: memory over 100,000 requests, a service at rest, and one that is asked for too much.

    python benchmarks/soak.py [--only memory,idle,isolation,metrics,many,overload,streams]

Starts the product on the loopback interface, and prints one line for each promise, with what was measured. `wrk` must
be installed. Ends with exit code 1 when one of them is not kept.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from generators import make
from load import closed, flood
from openai import OpenAI
from peers.core import Painter
from servers import PRODUCT, Running, Server, running
from serving import MNIST
from text_model import model_folder
from text_servers import serving
from text_soak import deserters
from watch import adopt_orphans, resident_mib, server_tree, watching

_PAIRS = 15
_MANY = 28
_SEEDS = 1_000_000_000


class Soak:
    """The promises, each a method that says what was measured and whether it holds."""

    def __init__(self, home: Path, requests: int, overload_s: int) -> None:
        self._home = home
        self._requests = requests
        self._overload_s = overload_s

    def memory(self) -> tuple[str, bool]:
        """Resident memory grows by less than 2% over many requests."""
        with self._serving() as up:
            closed(up.target, 32, 4, 0)
            before, done, rps = up.resident_mib, 0, 0.0
            while done < self._requests:
                window = closed(up.target, 32, 10, done)
                done, rps = done + window.requests + window.errors, window.rps
                if window.errors:
                    return f"{window.errors} errors", False
            growth = up.resident_mib / before - 1
        return (
            f"{before:.0f} MiB, {growth:+.2%} after {done} requests (the last ones at {rps:.0f}/s)",
            growth < 0.02,
        )

    def idle(self) -> tuple[str, bool]:
        """A service at rest, after load, takes less than 1% of a core."""
        with self._serving() as up:
            closed(up.target, 32, 2, 0)
            time.sleep(1)
            with watching() as usage:
                time.sleep(20)
        share = usage.server_s / usage.wall_s
        return f"{share:.2%} of a core over {usage.wall_s:.0f} s", share < 0.01

    def metrics(self) -> tuple[str, bool]:
        """Counting and timing every generation costs at most 3% of the throughput."""
        one = {**PRODUCT.environment, "BRIGANTINE_WORKERS": "1", "BRIGANTINE_THREADS": "1"}
        # How connections fall to two workers changes more than counting does.
        on = replace(PRODUCT, environment=one)
        off = replace(PRODUCT, environment={**one, "BRIGANTINE_METRICS": "false"})
        with self._serving(on) as counting, self._serving(off) as silent:
            return _cost(counting, silent, 0.03)

    def isolation(self) -> tuple[str, bool]:
        """A plugin in a process of its own costs at most 25% of the throughput."""
        alone = replace(PRODUCT, environment={**PRODUCT.environment, "BRIGANTINE_ISOLATE": "image"})
        with self._serving() as threads, self._serving(alone) as process:
            return _cost(process, threads, 0.25)

    def many(self) -> tuple[str, bool]:
        """64 images of one request cost less than 1.3 times what they cost without a server."""
        painter = Painter(MNIST)
        ratios: list[float] = []
        with self._serving() as up, httpx.Client() as client, ThreadPoolExecutor(2) as pool:
            for number in range(_MANY):
                seed = number * 1000
                begin = time.perf_counter()
                client.post(up.target.url, json={"seed": seed, "n": 64}).raise_for_status()
                took_s = time.perf_counter() - begin
                begin = time.perf_counter()
                list(pool.map(painter.paint, (range(seed, seed + 32), range(seed + 32, seed + 64))))
                ratios.append(took_s / (time.perf_counter() - begin))
        cost = statistics.median(ratios[_MANY // 4 :])
        return f"{cost:.2f} times", cost < 1.3

    def overload(self) -> tuple[str, bool]:
        """At three times its capacity a service answers 200, 429 or 504, and does 90% of its work."""
        model = make("g64", self._home / "models" / "g64")
        with self._serving(model=model) as up:
            closed(up.target, 64, 4, 0)
            rates = [closed(up.target, 64, 8, _SEEDS + i * 10_000).rps for i in range(3)]
            asked = 3 * statistics.median(rates)
            late = _Late(up, model.name, self._overload_s - 2)
            statuses, took_s, client_s = flood(up.target, asked, self._overload_s, 2 * _SEEDS)
            retried = late.answer()
            # What else runs on the machine changes in a minute: its capacity is that before and after.
            rates += [closed(up.target, 64, 8, _SEEDS + i * 10_000).rps for i in range(3, 6)]
        capacity = statistics.median(rates)
        goodput = statuses[200] / took_s / capacity
        wrong = {status: count for status, count in statuses.items() if status not in (200, 429, 504)}
        said = (
            f"{dict(sorted(statuses.items()))} in {took_s:.0f} s, {asked:.0f}/s asked for, goodput {goodput:.0%} of "
            f"{capacity:.0f}/s ({min(rates):.0f} to {max(rates):.0f} before and after), beside "
            f"a client that took {client_s / took_s:.2f} cores of its own, "
        )
        return said + f"official client: {retried}", not wrong and goodput >= 0.9 and retried == "answered"

    def streams(self) -> tuple[str, bool]:
        """1,000 clients that hang up in a stream, or stop reading it, leave nothing held and memory flat (2%)."""
        model = model_folder("shakespeare")
        with serving(model, self._home) as (port, _):
            # Memory for so many at once is kept for the next ones. Each worker has had more here than it will again.
            deserters(port, model.name, 300, 225, at_once=225)
            before, begin = resident_mib(server_tree()), time.monotonic()
            held = deserters(port, model.name, 775, 225)
            growth = resident_mib(server_tree()) / before - 1
        left = ", ".join(f"{name} {value:g}" for name, value in held.items())
        said = f"{left}; {before:.0f} MiB, {growth:+.2%}, after {time.monotonic() - begin:.0f} s"
        return said, not any(held.values()) and growth < 0.02

    def _serving(self, server: Server = PRODUCT, model: Path = MNIST) -> Any:
        return running(server, model, 2, self._home)


def _cost(dearer: Running, cheaper: Running, most: float) -> tuple[str, bool]:
    """How much less throughput the first has, window by window in turns, and whether that is no more than `most`."""
    for up in (dearer, cheaper):
        closed(up.target, 64, 2, 0)
    costs: list[float] = []
    for number in range(_PAIRS):
        pair = [dearer, cheaper] if number % 2 else [cheaper, dearer]
        rps = {id(up): closed(up.target, 64, 3, number * _SEEDS // 100).rps for up in pair}
        costs.append(1 - rps[id(dearer)] / rps[id(cheaper)])
    cost = statistics.median(costs)
    return f"{cost:.1%}, from {min(costs):.1%} to {max(costs):.1%} in {_PAIRS} rounds", cost <= most


class _Late:
    """The official client with its own retries, which comes when the service is busiest and load is about to fall."""

    def __init__(self, up: Running, model: str, after_s: float) -> None:
        self._outcome = "no answer"
        self._thread = threading.Thread(target=self._ask, args=(up, model, after_s))
        self._thread.start()

    def _ask(self, up: Running, model: str, after_s: float) -> None:
        time.sleep(after_s)
        try:
            with OpenAI(base_url=f"http://127.0.0.1:{up.target.port}/v1", api_key="none") as client:
                client.images.generate(prompt="anything", model=model)
            self._outcome = "answered"
        except Exception as error:  # what it was is the result
            self._outcome = repr(error)

    def answer(self) -> str:
        self._thread.join(120)
        return self._outcome


def main() -> None:
    promises: dict[str, Callable[[Soak], tuple[str, bool]]] = {
        "idle": Soak.idle,
        "isolation": Soak.isolation,
        "many": Soak.many,
        "memory": Soak.memory,
        "metrics": Soak.metrics,
        "overload": Soak.overload,
        "streams": Soak.streams,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--home", type=Path, default=Path("~/.cache/brigantine-bench"), help="models and logs"
    )
    parser.add_argument("--only", default=",".join(promises), help=f"some of {','.join(promises)}")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--overload-s", type=int, default=60)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # An overload needs many connections.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16_384), most))
    adopt_orphans()
    home = options.home.expanduser().resolve()
    home.mkdir(parents=True, exist_ok=True)
    soak = Soak(home, options.requests, options.overload_s)
    kept = True
    print("| promise | measured | kept |\n| --- | --- | --- |", flush=True)
    for name in options.only.split(","):
        measured, held = promises[name](soak)
        kept = kept and held
        said = (promises[name].__doc__ or name).rstrip(".")
        print(f"| {said} | {measured} | {'yes' if held else 'no'} |", flush=True)
    sys.exit(not kept)


if __name__ == "__main__":
    main()
