"""The real server in a process of its own, on a free port of the loopback interface."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

BIN = Path(sys.executable).parent


@dataclass
class Server:
    """A running server; its log is what it wrote so far."""

    url: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        return [one for one in psutil.Process(self.process.pid).children() if one.name() != "nest"]

    @property
    def nest(self) -> psutil.Process:
        """The process of which workers are forked."""
        [nest] = [one for one in psutil.Process(self.process.pid).children() if one.name() == "nest"]
        return nest

    @property
    def crashes(self) -> list[str]:
        """Lines of the log that no healthy service writes."""
        return [
            line for line in self.log.splitlines() if re.search(r"Traceback|ERROR|CRITICAL|Exception", line)
        ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(home: Path, command: Sequence[str] = ("brigantine", "serve"), **env: str) -> Iterator[Server]:
    """Run `command` with its BentoML home in `home`, from when it is ready until the block ends."""
    with launching(home, command, **env) as server:
        _wait_until_ready(server)
        yield server


@contextmanager
def launching(home: Path, command: Sequence[str] = ("brigantine", "serve"), **env: str) -> Iterator[Server]:
    """As `serving`, from the beginning."""
    if "--port" not in command:
        command = [*command, "--port", str(free_port())]
    port = command[command.index("--port") + 1]
    log_path = home / f"server-{port}.log"
    (home / "bentoml").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    environment |= {"BRIGANTINE_LAME_DUCK_SECONDS": "0"} | env  # no test but one waits for who is not there
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            env=environment,
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Server(f"http://127.0.0.1:{port}", process, log_path)
        finally:
            _stop(process)


def until(what: Callable[[], bool], patience_s: float = 20) -> bool:
    """Whether `what` came true in time."""
    deadline = time.monotonic() + patience_s
    while not (true := what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return true


def _wait_until_ready(server: Server, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"the server ended at its start:\n{server.log}"
        try:
            answer = httpx.get(f"{server.url}/readyz", timeout=2)
            if answer.status_code == 200:
                return
            assert "no model can be served" not in answer.text, answer.text  # waiting will not mend it
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready after {patience_s:.0f} s:\n{server.log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
