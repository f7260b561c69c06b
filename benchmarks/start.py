"""How long `make serve` takes until it is ready, and how much it has installed.

    python benchmarks/start.py [--port 3917] [--rounds 5]

Each round starts the service, asks `/readyz` every 20 ms until it says 200, and stops it. Run `make serve` once before:
the first one installs. The size is that of the whole environment, so run it in a checkout in which only that was run.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60


def seconds_to_ready(port: int) -> float:
    """Seconds from `make serve` to the first 200 of `/readyz`.

    Raises:
        SystemExit: the service ended, or was not ready within PATIENCE_S.
    """
    begin = time.perf_counter()
    command = ["make", "serve", f"PORT={port}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        while not is_ready(port):
            if process.poll() is not None or time.perf_counter() - begin > PATIENCE_S:
                raise SystemExit(
                    f"{' '.join(command)}: not ready within {PATIENCE_S} s; run it and read its log"
                )
            time.sleep(0.02)
        return time.perf_counter() - begin
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=3917)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds = [seconds_to_ready(options.port) for _ in range(options.rounds)]
    size = subprocess.run(
        ["du", "-sm", ROOT / ".venv"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    print("| installed | ready after (median, least to most) |")
    print("| --- | --- |")
    print(f"| {size} MiB | {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} |")


if __name__ == "__main__":
    main()
