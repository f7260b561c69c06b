"""The supervisor: the process that starts the workers, replaces those that end, and ends them all.

It is BentoML's, which uses circus for it (https://circus.readthedocs.io). Left to itself that looks every 10 s only
whether its workers are there, starts none anew inside a container, however often one dies it makes no pause, and waits
a day for one that does not end. `supervised` gives its class of supervisor the habits that an orchestrator counts on.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from .doorman import Doorman
from .errors import SettingsInvalid
from .hatchling import hatching
from .nest import Nest
from .settings import Settings
from .shared import Shared

__all__ = ["supervised"]

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_STEADY_S = 60.0
"""A worker that lived for so long has not crashed again."""
_BACK_OFF_S = 10.0
_MOST_SOCKET_BYTES = 107
"""Of a socket's path (unix(7))."""
_TRIES = 3
"""How many workers may end before any of them has answered once."""
_AGAIN_S = 0.1
"""After which a stop that came in between is tried again."""
_GRACE_S = 10.0
"""How much longer than it was given a worker may take to end."""
_ASKED = {-signal.SIGTERM, -signal.SIGINT}
"""How a worker ends that has answered, and was asked to end by somebody else."""


def supervised(
    base: type[Any], settings: Settings, shared: Shared, nest: Nest, doorman: bool = True
) -> type[Any]:
    """BentoML's class of supervisors, `base`, made to look after its workers as this service needs it.

    Args:
        base: `bentoml._internal.utils.circus.Arbiter`.
        settings: how long a drain may last.
        shared: what the workers share.
        nest: what they are forked of.
        doorman: whether someone is to answer while none of them does.
    """
    known = {"settings": settings, "shared": shared, "nest": nest, "speaks": doorman}
    return type("Supervisor", (_Supervision, base), known)


if TYPE_CHECKING:

    class _Arbiter:
        """What of circus' supervisor is built upon; it has no types of its own."""

        loop: Any
        sockets: dict[str, Any]
        _exclusive_running_command: str | None
        _exception: BaseException | None

        def __init__(self, watchers: list[Any], *args: Any, **kwargs: Any) -> None: ...
        def initialize(self) -> None: ...
        def reap_processes(self) -> None: ...
        def manage_watchers(self) -> Any: ...
        def stop(self) -> Any: ...
        def stop_controller_and_close_sockets(self) -> None: ...
else:
    _Arbiter = object


class _Supervision(_Arbiter):
    settings: Settings
    shared: Shared
    nest: Nest
    speaks: bool

    def __init__(self, watchers: list[Any], *args: Any, **kwargs: Any) -> None:
        self._ours = [*watchers]  # circus adds others, such as that of `bentoml serve --reload`
        given = kwargs | _endpoints(self.shared.folder) | {"check_delay": _LOOK_S}
        super().__init__(watchers, *args, **given)
        self._nurse = _Nurse(self.shared)
        self._doorman: Doorman | None = None
        for watcher in self._ours:
            watcher.respawn = True  # BentoML would not, in a container
            watcher.graceful_timeout = self.settings.drain_seconds + _GRACE_S
            watcher.hooks["before_signal"] = self._nurse.asks
            watcher.hooks["after_reap"] = self._nurse.ended
            watcher.__class__ = hatching(watcher.__class__, self.nest)

    def initialize(self) -> None:
        """Open the socket."""
        with _one_line_for(self.sockets.values()):
            super().initialize()
        [listener, *_] = self.sockets.values()
        self._doorman = Doorman(listener.fileno(), self.shared, self.settings.dev, silent=not self.speaks)

    def manage_watchers(self) -> Any:
        """Called again and again: start workers in the place of those that have ended."""
        if self._nurse.stopping or self._exclusive_running_command is not None:
            return None
        self._nurse.opened = self._doorman is not None and self._doorman.opened
        self.reap_processes()
        if not self._nurse.opened and self._nurse.crashes >= _TRIES:
            return self._fail(f"{self._nurse.crashes} workers have ended before one was ready")
        if self._nurse.crashes and not self.shared.folder.exists():
            return self._fail(f"{self.shared.folder} has been removed, without which no worker can start")
        self._nurse.forget({pid for watcher in self._ours for pid in watcher.processes})
        return super().manage_watchers() if self._nurse.is_due() else None

    def stop(self) -> Any:
        """End all workers, and then this process; what circus is about, a start or a reload, is let end before."""
        self._tell()
        if self._exclusive_running_command is not None:  # circus would refuse, and not come back to it
            self.loop.call_later(_AGAIN_S, self.stop)
            return None
        return super().stop()

    def _fail(self, why: str) -> Any:
        log.critical("%s: the %s has failed", why, "service" if self._nurse.opened else "start")
        self._exception = SystemExit(1)
        return self.stop()

    def _tell(self) -> None:
        """Say to all that the service stops."""
        if self._nurse.stopping:
            return
        self._nurse.stopping = True
        with suppress(OSError):  # then workers take it for the end of them alone
            self.shared.stop()
        if self._doorman is not None:
            self._doorman.stop()
        if self._exclusive_running_command is not None:  # a reload waits for those that it ends
            for process in [one for watcher in self._ours for one in watcher.processes.values()]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGTERM)

    def stop_controller_and_close_sockets(self) -> None:
        """Close the door."""
        if self._doorman is not None:
            self._doorman.close()
        for listener in self.sockets.values():
            with suppress(OSError):  # it was never opened
                # The doorman has it, too, and nobody must wait until this process has ended.
                listener.shutdown(socket.SHUT_RDWR)
        super().stop_controller_and_close_sockets()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # circus has put back what was there: it ends already


def _endpoints(folder: Path) -> dict[str, str]:
    """Where circus takes orders: BentoML would have it take them of everybody on this machine, by TCP."""
    paths = {"endpoint": folder / "control", "pubsub_endpoint": folder / "events"}
    if any(len(os.fsencode(path)) > _MOST_SOCKET_BYTES for path in paths.values()):
        return {}
    return {name: f"ipc://{path}" for name, path in paths.items()}


@contextmanager
def _one_line_for(sockets: Iterable[Any]) -> Generator[None]:
    """circus tells of an address that cannot be had in a traceback."""
    try:
        yield
    except OSError as error:
        addresses = ", ".join(f"{one.host}:{one.port}" for one in sockets)
        message = (
            f"{addresses}: expected an address to listen on, got {error}; stop what is there, or take another"
        )
        print(f"{SettingsInvalid.code}: {message} with --port", file=sys.stderr)
        raise SystemExit(1) from None


class _Nurse:
    """Keeps count of the workers that ended, and says when the next one may be started."""

    def __init__(self, shared: Shared) -> None:
        self.crashes = 0
        """How many in a row."""
        self.opened = False
        """Whether a worker has ever answered."""
        self.stopping = False
        self._asked: set[int] = set()
        self._shared = shared
        self._last_s = 0.0
        self._due_s = 0.0

    def asks(self, pid: int, **_: Any) -> bool:
        """circus' hook: it is about to ask a worker to end."""
        self._asked.add(pid)
        return True

    def ended(self, process_pid: int, exit_code: int, **_: Any) -> bool:
        """circus' hook: a worker has ended, and its exit code is known."""
        self._clear(process_pid)
        if self.stopping or process_pid in self._asked or (self.opened and exit_code in _ASKED):
            return True
        now = time.monotonic()
        again = (
            not self.opened or now - self._last_s < _STEADY_S
        )  # a model may load for minutes, and then fail
        self.crashes = self.crashes + 1 if again else 1
        wait_s = min(2.0 ** (self.crashes - 2), _BACK_OFF_S) if self.crashes > 1 else 0.0
        self._last_s, self._due_s = now, now + wait_s
        how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        log.error("worker %d ended (%s); another one is started in %g s", process_pid, how, wait_s)
        return True

    def forget(self, alive: Collection[int]) -> None:
        """circus does not tell of every worker that has ended: not of one that it has waited for itself."""
        self._asked.intersection_update(alive)
        for gauge in self._shared.counts.glob("gauge_live*_*.db"):
            pid = int(gauge.stem.rpartition("_")[2])
            if pid not in alive and not psutil.pid_exists(pid):
                self._clear(pid)

    def _clear(self, pid: int) -> None:
        """What it has counted stays, but not what it said of itself while it lived."""
        for gauge in self._shared.counts.glob(f"gauge_live*_{pid}.db"):
            gauge.unlink(missing_ok=True)

    def is_due(self) -> bool:
        """Whether a worker that is missing may be started."""
        return time.monotonic() >= self._due_s
