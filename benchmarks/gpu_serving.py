"""The whole server on a GPU: what clients get through HTTP, by how many processes share the device.

    python benchmarks/gpu_serving.py
    python benchmarks/gpu_serving.py --device cpu --workers 2

Serves what ships and nothing else. Clients are processes of this machine, which they share with the server.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

_CLIENTS = 4
"""Processes; the connections are divided among them."""
_START_S, _STOP_S = 120, 40


class Kind(NamedTuple):
    """A kind of request."""

    what: str
    path: str
    body: dict[str, Any]
    made: int
    """Pictures or tokens of one."""
    connections: int


KINDS = (
    Kind("a picture", "/v1/images/generations", {"model": "mnist"}, 1, 1),
    Kind("a picture", "/v1/images/generations", {"model": "mnist"}, 1, 64),
    Kind("64 pictures", "/v1/images/generations", {"model": "mnist", "n": 64}, 64, 16),
    Kind("128 tokens", "/v1/completions", {"model": "shakespeare", "max_tokens": 128}, 128, 1),
    Kind("128 tokens", "/v1/completions", {"model": "shakespeare", "max_tokens": 128}, 128, 16),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4], help="processes of the server")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each line")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {options.device}, {options.seconds} s each\n")
    print("| workers | request | connections | requests/s | made/s | p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for workers in options.workers:
        with served(workers, options.device) as port:
            for kind in KINDS:
                print(f"| {workers} | {row(port, kind, options.seconds)} |", flush=True)
            if options.device == "cuda":
                print(f"({workers} workers: {memory()} of device memory)", file=sys.stderr, flush=True)


def memory() -> str:
    """What is in use on the GPU."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def row(port: int, kind: Kind, seconds: float) -> str:
    most = -(-kind.connections // _CLIENTS)
    shares = [min(most, kind.connections - begun) for begun in range(0, kind.connections, most)]
    with ProcessPoolExecutor(len(shares)) as pool:
        several = [
            pool.submit(drive, port, kind, share, seconds, 10**6 * index)
            for index, share in enumerate(shares)
        ]
        times = sorted(itertools.chain.from_iterable(one.result() for one in several))
    if not times:
        raise RuntimeError(f"no request for {kind.what} ended within {seconds} s; give --seconds more")
    rate = len(times) / seconds
    p50, p99 = statistics.median(times) * 1e3, times[int(len(times) * 0.99)] * 1e3
    return f"{kind.what} | {kind.connections} | {rate:,.0f} | {rate * kind.made:,.0f} | {p50:.1f} | {p99:.1f}"


def drive(port: int, kind: Kind, connections: int, seconds: float, first_seed: int) -> list[float]:
    """Closed loops over so many connections: the seconds of each request that ended in time."""
    seeds, times = itertools.count(first_seed), list[float]()
    errors: list[BaseException] = []
    end = time.perf_counter() + seconds

    def loop() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            while time.perf_counter() < end:
                begin = time.perf_counter()
                connection.request("POST", kind.path, json.dumps(kind.body | {"seed": next(seeds)}))
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{kind.path}: {answer.status}: {body[:200]!r}")
                if time.perf_counter() < end:
                    times.append(time.perf_counter() - begin)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=loop) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return times


@contextmanager
def served(workers: int, device: str) -> Any:
    """The server's port, while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gpu = {"BRIGANTINE_REQUIRE_GPU": "1"} if device == "cuda" else {"BRIGANTINE_DEVICE": "cpu"}
    environment = os.environ | gpu | {"BRIGANTINE_WORKERS": str(workers)}
    command = [sys.executable, "-c", "from brigantine.cli import main; main()", "serve", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(server, port, device)
            yield port
        except BaseException:
            log.seek(0)
            print(log.read().decode()[-4000:], file=sys.stderr)
            raise
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def _wait(server: subprocess.Popen[bytes], port: int, device: str) -> None:
    """Until it is ready, with every model where it should be."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.poll() is None:
        time.sleep(0.2)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, ValueError):
            continue
        if answer.status == 200:
            assert set(told["models"].values()) == {device}, told
            return
    raise RuntimeError(f"the server is not ready after {_START_S} s, or has ended ({server.poll()})")


if __name__ == "__main__":
    main()
