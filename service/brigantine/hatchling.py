"""Hatchling: a worker that was forked of the nest, as circus looks at its processes."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from .nest import Nest, Order

__all__ = ["hatching"]


def hatching(base: type[Any], nest: Nest) -> type[Any]:
    """circus' class of watchers, `base`, made to have its processes forked instead of starting each by itself.

    Args:
        base: `circus.watcher.Watcher`.
        nest: what they are forked of.
    """
    process = base._process_class.fget(None)
    return type("Watcher", (base,), {"_process_class": type("Process", (_Process, process), {"nest": nest})})


if TYPE_CHECKING:

    class _CircusProcess:
        """What of circus' process is built upon; it has no types of its own."""

        started: float
        env: dict[str, str]
        working_dir: str
        _worker: Any

        def _get_sockets_fds(self) -> dict[str, int]: ...
        def format_args(self, sockets_fds: dict[str, int]) -> list[str]: ...
        def spawn(self) -> None: ...
else:
    _CircusProcess = object


class _Process(_CircusProcess):
    nest: Nest

    def spawn(self) -> None:
        """Start it: `python -m module ...`, with one socket."""
        sockets = self._get_sockets_fds()
        [listener] = sockets.values()
        _, _, *arguments = self.format_args(sockets_fds=sockets)
        pid = self.nest.hatch(Order(arguments, self.env, self.working_dir, listener))
        if pid is None:
            super().spawn()
        else:
            self.started = time.time()
            self._worker = _Hatchling(pid)


class _Hatchling(psutil.Process):
    """Stands in for a `psutil.Popen`."""

    returncode: int | None = None
    stdout = stderr = None

    def poll(self) -> int | None:
        """How it ended; None while it lives."""
        if self.returncode is None:
            with suppress(psutil.TimeoutExpired):
                self.returncode = self.wait(0) or 0  # it has none when somebody else has asked before
        return self.returncode
