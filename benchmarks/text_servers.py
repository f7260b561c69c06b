"""Who writes: the product behind HTTP, and processes that are told what to write on their standard input."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from servers import PEERS, Server, ServerFailed, install

PEER = Server("text", "text", [])
"""The peers' environment; see `peers/text.txt`."""
_PATIENCE_S = 60


class Worker:
    """A process that writes; see `peers/text_worker.py`."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path) -> None:
        self.name = name
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True, cwd=PEERS
            )
        self._log = log
        self.versions: dict[str, str] = self._answer()["versions"]

    def write(
        self, prompts: Sequence[Sequence[int]], most: int, seconds: float | None = None
    ) -> dict[str, Any]:
        """Texts of `most` tokens; the answer has the tokens of each, and the seconds that all took."""
        assert self._process.stdin is not None
        asked = {"prompts": prompts, "most": most, "seconds": seconds}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(5)
            end = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise ServerFailed(f"{self.name} ended: {' '.join(end)[:300]}")
        return json.loads(line)


@contextmanager
def writing(commands: Mapping[str, Sequence[str | Path]], home: Path) -> Iterator[dict[str, Worker]]:
    """Workers by their names, until the block ends."""
    (home / "logs").mkdir(parents=True, exist_ok=True)
    there: dict[str, Worker] = {}
    try:
        for name, command in commands.items():
            there[name] = Worker(name, command, home / "logs" / f"text-{name.replace(' ', '-')}.log")
        yield there
    finally:
        for worker in there.values():
            worker.close()


@contextmanager
def serving(model: Path, home: Path, workers: int = 0, **environment: str) -> Iterator[tuple[int, int]]:
    """The product with the models of `model`'s parent, on a free port; gives the port and the process's id.

    Args:
        model: the model that must be ready.
        home: where its log goes.
        workers: how many; 0 for the default.
        environment: more settings.

    Raises:
        ServerFailed: it ended, or was not ready in time.
    """
    port = _free_port()
    for folder in (home / "scratch/bentoml", home / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    settings = os.environ | {
        "BRIGANTINE_MODELS_DIR": str(model.parent),
        "BRIGANTINE_WORKERS": str(workers),
        "BRIGANTINE_ACCESS_LOG": "false",
        "BENTOML_HOME": str(home / "scratch/bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        **environment,
    }
    command = [Path(sys.executable).parent / "brigantine", "serve", "--port", str(port)]
    log = home / "logs" / f"text-brigantine-{workers}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=settings, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_ready(process, port, log)
        yield port, process.pid
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
                break


def peers_python(home: Path) -> Path:
    """The interpreter of the peers' environment, which is made when it is not there."""
    return install(PEER, home) / "python"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    end = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise ServerFailed(f"brigantine serve was not ready: {' '.join(end)[:300]}")
