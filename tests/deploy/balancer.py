"""HAProxy with the shipped configuration, in front of two replicas."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from tests.e2e.server import free_port, until

__all__ = ["CONFIG", "Answer", "Balancer", "balancing", "request"]

CONFIG = Path(__file__).parent.parent.parent / "deploy" / "haproxy.cfg"


class Answer(NamedTuple):
    status: int
    body: bytes
    retry_after: str | None


def request(port: int, method: str, path: str, body: str | None = None) -> Answer:
    """Ask, on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return Answer(response.status, response.read(), response.headers["retry-after"])
    finally:
        connection.close()


class Balancer(NamedTuple):
    port: int
    metrics_port: int

    def metrics(self) -> list[str]:
        return request(self.metrics_port, "GET", "/metrics").body.decode().splitlines()

    def replicas_up(self) -> int:
        """How many HAProxy gives work to."""
        name = 'haproxy_backend_active_servers{proxy="replicas"}'
        [line] = [line for line in self.metrics() if line.startswith(name)]
        return int(float(line.split()[-1]))


@contextmanager
def balancing(first: int, second: int) -> Iterator[Balancer]:
    """HAProxy runs in front of what listens on these ports, until the block ends."""
    balancer = Balancer(free_port(), free_port())
    environment = os.environ | {
        "PORT": str(balancer.port),
        "METRICS_PORT": str(balancer.metrics_port),
        "REPLICA_1": f"127.0.0.1:{first}",
        "REPLICA_2": f"127.0.0.1:{second}",
    }
    command = ["haproxy", "-db", "-f", str(CONFIG)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert until(lambda: _answers(balancer.metrics_port))
            yield balancer
        finally:
            process.kill()


def _answers(port: int) -> bool:
    try:
        return request(port, "GET", "/metrics").status == 200
    except OSError:
        return False
