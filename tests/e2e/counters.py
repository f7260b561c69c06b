"""Looks at /metrics again and again, for counters that go back."""

from __future__ import annotations

import re
import threading
from types import TracebackType

import httpx

from tests.e2e.server import Server

_ANSWERED = 'brigantine_requests_total{content="image",model="mnist",status="200"}'
_PAUSE_S = 0.1


def counts(server: Server) -> dict[str, float]:
    """Every counter, and what histograms count."""
    exposed = httpx.get(f"{server.url}/metrics", timeout=10).text
    counters = set(re.findall(r"^# TYPE (\w+) (?:counter|histogram)$", exposed, re.M))
    return {
        name + labels: float(value)
        for name, labels, value in re.findall(r"^(\w+)(\{[^}]*\})? (\S+)$", exposed, re.M)
        if name in counters or re.sub(r"_(bucket|count|sum)$", "", name) in counters
    }


class Watcher:
    """Looks until its block ends."""

    def __init__(self, server: Server) -> None:
        self.gone_back: list[str] = []
        self.looks = 0
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def answered(self) -> float:
        """How many requests were counted as answered."""
        return counts(self._server)[_ANSWERED]

    def _watch(self) -> None:
        before: dict[str, float] = {}
        while not self._over.wait(_PAUSE_S):
            try:
                now = counts(self._server)
            except httpx.TransportError:
                continue  # the worker that was asked has been killed
            self.gone_back += [name for name, value in before.items() if now.get(name, 0.0) < value]
            self.looks += 1
            before = now
