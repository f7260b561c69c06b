"""What an orchestrator and its clients count on, some 3 minutes: replicas restarted and killed under load, counters.

    python benchmarks/lifecycle.py [--only counts,killed,rolling] [--seconds 60] [--requests 100000]

Starts the product on the loopback interface, behind HAProxy (Debian's `haproxy`) with `deploy/haproxy.cfg`, and prints
one line for each promise, with what was measured. Ends with exit code 1 when one of them is not kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.e2e.clients import Account, load  # noqa: E402 - found through the line above
from tests.e2e.counters import Watcher  # noqa: E402
from tests.e2e.server import Server, free_port, serving, until  # noqa: E402

_QUIET = {"BRIGANTINE_ACCESS_LOG": "false", "BRIGANTINE_LAME_DUCK_SECONDS": "1"}
_CLIENTS = 8
_STEADY_S = 3.0


class Replicas:
    """Two replicas of two workers each, and HAProxy before them."""

    def __init__(self, home: Path, services: ExitStack) -> None:
        self._home = home
        self._services = services
        self._ports = [free_port(), free_port()]
        self.servers = [self.start(0), self.start(1)]
        self.address = f"127.0.0.1:{services.enter_context(haproxy(home, self._ports))}"

    def start(self, number: int) -> Server:
        """Start one, and wait until it is ready."""
        command = ("brigantine", "serve", "--port", str(self._ports[number]))
        running = serving(self._home / f"replica-{number}", command, BRIGANTINE_WORKERS="2", **_QUIET)
        return self._services.enter_context(running)

    def restart(self, number: int) -> tuple[int, float]:
        """Stop one by SIGTERM and start it again: its exit code, and how long its end took."""
        begin = time.monotonic()
        self.servers[number].process.terminate()
        code = self.servers[number].process.wait(40)
        took_s = time.monotonic() - begin
        self.servers[number] = self.start(number)
        return code, took_s


@contextmanager
def haproxy(home: Path, replicas: list[int]) -> Iterator[int]:
    """HAProxy with the configuration that is shipped; its port."""
    port = free_port()
    environment = {"PORT": str(port), "METRICS_PORT": str(free_port())}
    environment |= {f"REPLICA_{number}": f"127.0.0.1:{one}" for number, one in enumerate(replicas, 1)}
    with (home / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(ROOT / "deploy" / "haproxy.cfg")],
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        assert until(lambda: _answers(port)), (home / "haproxy.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _said(account: Account) -> str:
    broken = f", {len(account.broken)} broken ({account.broken[0]})" if account.broken else ""
    return f"{dict(sorted(account.statuses.items()))}{broken}, the longest {account.longest_s:.2f} s"


def rolling(home: Path, seconds: float, requests: int) -> tuple[str, bool]:
    """Both replicas are restarted by SIGTERM under load, and no request fails."""
    with ExitStack() as services:
        replicas = Replicas(home, services)
        begin, ends = time.monotonic(), list[tuple[int, float]]()
        with load([replicas.address], _CLIENTS) as (account, _):
            while time.monotonic() - begin < seconds or len(ends) < 2:
                time.sleep(_STEADY_S)
                ends.append(replicas.restart(len(ends) % 2))
            time.sleep(_STEADY_S)
        took_s = time.monotonic() - begin
    exits = ", ".join(f"exit {code} after {ended_s:.1f} s" for code, ended_s in ends)
    kept = account.statuses.keys() == {200} and not account.broken and not any(code for code, _ in ends)
    return f"{_said(account)}, in {took_s:.0f} s; {len(ends)} restarts: {exits}", kept


def killed(home: Path, seconds: float, requests: int) -> tuple[str, bool]:
    """One worker is killed under load: every client has an answer or an error within 2 s, and it is back within 5 s."""
    with ExitStack() as services:
        replicas = Replicas(home, services)
        server = replicas.servers[0]
        assert until(lambda: server.log.count("Completed startup hook") == 2)
        with load([replicas.address], _CLIENTS) as (account, _):
            time.sleep(_STEADY_S)
            begin = time.monotonic()
            server.workers[0].kill()
            is_back = until(lambda: server.log.count("Completed startup hook") == 3, 60)
            back_s = time.monotonic() - begin
            time.sleep(_STEADY_S)
    clean = set(account.statuses) <= {200, 502, 503} and not account.broken
    return (
        f"{_said(account)}; back after {back_s:.1f} s",
        clean and account.longest_s < 2 and is_back and back_s < 5,
    )


def counts(home: Path, seconds: float, requests: int) -> tuple[str, bool]:
    """Of four workers one is killed half-way: no counter goes back, and every answer is counted."""
    home.mkdir(parents=True, exist_ok=True)
    with serving(home, BRIGANTINE_WORKERS="4", **_QUIET) as server:
        assert until(lambda: server.log.count("Completed startup hook") == 4, 60)
        with Watcher(server) as watcher, load([server.url[7:]], _CLIENTS, limit=requests) as (account, wait):
            assert until(lambda: account.asked > requests // 2, 3600)
            server.workers[0].kill()
            wait()
        made = watcher.answered()
    answered, broken = account.statuses[200], len(account.broken)
    kept = not watcher.gone_back and answered <= made <= answered + broken and answered + broken == requests
    return (
        f"{_said(account)}; counted {made:.0f}, {len(watcher.gone_back)} of {watcher.looks} looks went back",
        kept,
    )


def main() -> None:
    promises: dict[str, Callable[[Path, float, int], tuple[str, bool]]] = {
        "counts": counts,
        "killed": killed,
        "rolling": rolling,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(promises), help=f"some of {','.join(promises)}")
    parser.add_argument("--seconds", type=float, default=60, help="how long replicas are restarted")
    parser.add_argument("--requests", type=int, default=100_000, help="how many are counted")
    options = parser.parse_args()
    kept = True
    print("| promise | measured | kept |\n| --- | --- | --- |", flush=True)
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory(prefix="brigantine-lifecycle-") as folder:
            measured, held = promises[name](Path(folder), options.seconds, options.requests)
        kept = kept and held
        said = (promises[name].__doc__ or name).rstrip(".")
        print(f"| {said} | {measured} | {'yes' if held else 'no'} |", flush=True)
    sys.exit(not kept)


if __name__ == "__main__":
    main()
