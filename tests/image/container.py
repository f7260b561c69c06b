"""Containers of the image under test, by docker or podman, as docs/deploy.md starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import psutil

from tests.e2e.server import Server, free_port, until

IMAGE = os.environ.get("IMAGE_UNDER_TEST", "")
PLUGIN_IMAGE = os.environ.get("PLUGIN_IMAGE_UNDER_TEST", "")
"""The same with `examples/brigantine-chime` in it."""
ENGINE = os.environ.get("ENGINE") or ("docker" if shutil.which("docker") else "podman")
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=512m",
    "--env=BRIGANTINE_WORKERS=2",  # the same on every machine
)
WORKERS = 2
PATIENCE_S = 60


def engine(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run docker or podman; what it printed is in the answer.

    Raises:
        AssertionError: it failed, unless `check` is off.
    """
    ran = subprocess.run([ENGINE, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0 or not check, f"{ENGINE} {' '.join(arguments)}\n{ran.stdout}{ran.stderr}"
    return ran


def inspect(kind: str, name: str) -> dict[str, Any]:
    """What the engine knows of an `image` or a `container`."""
    [known] = json.loads(engine(kind, "inspect", name).stdout)
    return known


class Container(Server):
    """A running container; its process is the first one in it."""

    def __init__(self, name: str, url: str, begin: float) -> None:
        process = psutil.Process(inspect("container", name)["State"]["Pid"])
        super().__init__(url, cast(Any, process), Path(os.devnull))
        self.name = name
        self.begin = begin
        """When its start was asked for, by the monotonic clock."""
        self.ready_s = 0.0
        """How long after that it was ready."""

    @property
    def log(self) -> str:
        ran = engine("logs", self.name)
        return ran.stdout + ran.stderr

    def run(self, *command: str, check: bool = True) -> str:
        """What a command in the container prints."""
        return engine("exec", self.name, *command, check=check).stdout

    def healthy(self) -> bool:
        """By the image's own HEALTHCHECK. podman leaves its intervals to systemd, which not every machine has."""
        if Path(ENGINE).name == "podman":
            return engine("healthcheck", "run", self.name, check=False).returncode == 0
        return inspect("container", self.name)["State"]["Health"]["Status"] == "healthy"

    def serving(self, starts: int = WORKERS) -> bool:
        """Whether so many workers have loaded their models, those that are gone included."""
        return self.log.count("model mnist: serving") == starts

    def worker_pids(self) -> set[int]:
        """Their process ids as seen in the container: the children of the first process, but for the nest."""
        stats = self.run("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null; true").splitlines()
        found = [re.fullmatch(r"(\d+) \((.*)\) \S (\d+) .*", line) for line in stats]
        return {int(one[1]) for one in found if one and one[3] == "1" and one[2] != "nest"}


@contextmanager
def started(image: str, *options: str, port: int = 0) -> Iterator[Container]:
    """A container with these options beside the usual ones, from its start on."""
    name = f"brigantine-test-{uuid.uuid4().hex[:8]}"
    begin = time.monotonic()
    try:
        engine("run", "--detach", f"--name={name}", *HARDENED, *options, image)
        yield Container(name, f"http://127.0.0.1:{port}", begin)
    finally:
        engine("rm", "--force", "--volumes", name)


@contextmanager
def running(image: str, *options: str) -> Iterator[Container]:
    """A container with a published port, from when it is ready."""
    port = free_port()
    with started(image, f"--publish=127.0.0.1:{port}:3000", *options, port=port) as container:
        assert until(lambda: _ready(container), PATIENCE_S), container.log
        container.ready_s = time.monotonic() - container.begin
        yield container


def _ready(container: Container) -> bool:
    assert psutil.pid_exists(container.process.pid), f"the container ended at its start:\n{container.log}"
    try:
        return httpx.get(f"{container.url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
