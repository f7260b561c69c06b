"""The servers: how each is installed, started and stopped. What each serves is in `peers/`."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import httpx
from load import MAGIC, Target
from watch import resident_mib, server_tree

PEERS = Path(__file__).parent / "peers"
SHARED = ("onnxruntime", "numpy", "zlib-ng")
"""What does the work. Each peer should have the versions that the product has."""
_PATIENCE_S = 120
_UVICORN = ("--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools")
_V2 = '{"inputs": [{"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [%d]}]}'


class ServerFailed(Exception):
    """A server could not be installed, did not start, or gave a wrong answer."""


@dataclass(frozen=True)
class Server:
    """One way to serve the model. `{port}`, `{workers}` and the like are filled in at the start."""

    name: str
    requirements: str
    """The file in `peers/` that says what is in its environment; empty for the product, which runs in ours."""
    command: Sequence[str]
    path: str = "/generate"
    body: str = '{"seed": %d}'
    environment: Mapping[str, str] = field(default_factory=dict)


PRODUCT = Server(
    "brigantine",
    "",
    ["brigantine", "serve", "--port", "{port}"],
    path="/v1/models/{model}/generate",
    environment={
        "BRIGANTINE_MODELS_DIR": "{models_dir}",
        "BRIGANTINE_WORKERS": "{workers}",
        "BRIGANTINE_THREADS": "{workers}",
        "BRIGANTINE_ACCESS_LOG": "false",
    },
)
_AS_IT_IS = {**PRODUCT.environment, "BRIGANTINE_PLAIN_CONVOLUTIONS": "false"}
SERVERS = [
    PRODUCT,
    replace(PRODUCT, name="brigantine-as-is", environment=_AS_IT_IS),  # the graph as the others run it
    Server(
        "bentoml",
        "bentoml",
        ["bentoml", "serve", "serve_bentoml:Peer", "--host", "127.0.0.1", "--port", "{port}"],
        body='{"seed": [%d]}',
    ),
    Server("litserve", "litserve", ["python", "serve_litserve.py", "{port}"]),
    Server(
        "mlserver",
        "mlserver",
        ["mlserver", "start", "mlserver_model"],
        path="/v2/models/image/infer",
        body=_V2,
        environment={
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port_2}",
            "MLSERVER_METRICS_PORT": "{port_3}",
            "MLSERVER_METRICS_DIR": "{scratch}",
            "MLSERVER_ENVIRONMENTS_DIR": "{scratch}",
            "MLSERVER_PARALLEL_WORKERS": "{workers}",
            "MLSERVER_DEBUG": "false",
        },
    ),
    Server(
        "ray",
        "ray",
        ["python", "serve_ray.py", "{port}"],
        environment={
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            # Both open ports on all interfaces, which a benchmark must not.
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": "{scratch}",
        },
    ),
    Server(
        "fastapi",
        "fastapi",
        ["uvicorn", "serve_fastapi:app", "--port", "{port}", "--workers", "{workers}", *_UVICORN],
    ),
    Server(
        "fastapi-batched",
        "fastapi",
        ["uvicorn", "serve_fastapi_batched:app", "--port", "{port}", "--workers", "{workers}", *_UVICORN],
    ),
    Server(
        "triton",
        "triton",
        ["python", "serve_triton.py", "{port}", "{port_2}"],
        path="/v2/models/image/infer",
        body=_V2,
        # Its stub is linked with libpython, which lies with the interpreter.
        environment={"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or ""},
    ),
]


@dataclass
class Running:
    """A server that answers."""

    target: Target
    start_s: float
    """From its start to its first right answer."""

    @property
    def resident_mib(self) -> float:
        return resident_mib(server_tree())


def install(server: Server, home: Path) -> Path:
    """The `bin` folder of its environment, made anew when its requirements have changed.

    Raises:
        ServerFailed: pip could not install them.
    """
    if not server.requirements:
        return Path(sys.executable).parent
    requirements = PEERS / f"{server.requirements}.txt"
    venv = home / "venvs" / server.requirements
    stamp, wanted = venv / ".installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {server.requirements} into {venv}", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        _run(
            [
                str(venv / "bin/pip"),
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-r",
                str(requirements),
            ]
        )
        stamp.write_text(wanted)
    return venv / "bin"


def differences(server: Server) -> dict[str, str]:
    """Which of SHARED a peer has in another version than the product, and in which."""
    if not server.requirements:
        return {}
    lines = (PEERS / f"{server.requirements}.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name: pinned[name] for name in SHARED if pinned[name] != metadata.version(name)}


@contextmanager
def running(server: Server, model: Path, workers: int, home: Path) -> Iterator[Running]:
    """Run a server until the block ends.

    Raises:
        ServerFailed: it could not be installed, ended, or did not answer in time; with the last line of its log.
    """
    binaries = install(server, home)
    scratch, logs = home / "scratch", home / "logs"
    for folder in (scratch / "bentoml", logs):
        folder.mkdir(parents=True, exist_ok=True)
    ports = _free_ports(3)
    values = {
        "port": ports[0], "port_2": ports[1], "port_3": ports[2],
        "model": model.name, "models_dir": model.parent, "workers": workers, "scratch": scratch,
    }  # fmt: skip
    environment = os.environ | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(PEERS),
        "BENCH_MODEL": str(model),
        "BENCH_WORKERS": str(workers),
        "BENTOML_HOME": str(scratch / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        **{name: value.format(**values) for name, value in server.environment.items()},
    }
    command = [binaries / server.command[0], *(word.format(**values) for word in server.command[1:])]
    target = Target(ports[0], server.path.format(**values), server.body)
    log = logs / f"{server.name}-{workers}.log"
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=PEERS,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for_answer(process, target, log)
        yield Running(target, time.monotonic() - begin)
    finally:
        _stop(process)


def ask(client: httpx.Client, target: Target, seed: int) -> str:
    """One answer's body.

    Raises:
        ServerFailed: it is no 2xx.
    """
    answer = client.post(target.url, content=target.body % seed, headers={"content-type": "application/json"})
    if not answer.is_success:
        raise ServerFailed(f"{answer.status_code} for seed {seed}: {answer.text[:300]}")
    return answer.text


def _wait_for_answer(process: subprocess.Popen[bytes], target: Target, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    last = ""
    with httpx.Client(timeout=10) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if MAGIC in (last := ask(client, target, 0)):
                    return
            except (httpx.TransportError, ServerFailed) as error:
                last = str(error)
            time.sleep(0.05)
    what = "did not answer" if process.returncode is None else f"ended with {process.returncode}"
    lines = log.read_text(errors="replace").split("\n")
    end = next((line for line in reversed(lines) if line.strip()), "nothing")
    raise ServerFailed(f"the server {what} ({last[:200]}); the last line of {log.name}: {end[:300]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and everything that it left behind."""
    for how, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
    for pid in server_tree():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while server_tree() and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        end = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise ServerFailed(f"{Path(command[0]).name} {command[1]} failed with {done.returncode}: {end}")
