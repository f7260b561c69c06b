"""Isolation: a model in a process of its own, which may crash without the worker.

Only requests and finished media cross: the process prepares, computes and encodes. When it dies, what it was making
fails, and another one is started, later each time that one makes nothing.

The process runs `main`. It reads from its parent alone, and ends when that has gone.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .blocks import environment
from .discovery import Origin
from .errors import GenerationFailed, ModelInvalid, NotReady
from .intake import Intake
from .model import Model
from .pages import use_huge_pages
from .session import Session, SessionOptions
from .station import Fault, Order, Outcome, Report, Station
from .warmup import Facts, warm_up

__all__ = ["ProcessLane", "ProcessSpec"]

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("!I")
_BACK_OFF_S, _MOST_BACK_OFF_S = 0.1, 10.0
_END_S, _LAST_WORDS_S = 5.0, 0.2
"""How long a process may take to end, and one whose work is lost anyway."""
_CHUNK = 1 << 20
_LOOK = "look into the service's log for what its plugin or a library did"


class ProcessSpec(NamedTuple):
    """What a process loads, and how long it may take for that and for a batch."""

    path: Path
    source: str
    digest: str
    """The model's, as the worker has seen it."""
    plugin: Origin
    options: SessionOptions
    require_gpu: bool
    max_n: int
    max_batch: int
    load_timeout_s: float
    batch_timeout_s: float


class ProcessLane:
    """One process, as the worker sees it: tasks go out, and their reports come back in the same order.

    See `brigantine.work.Lane`.

    Args:
        spec: what it runs.

    Raises:
        NotReady: it did not start in time; carries the reason.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self.ready = False
        self.on_ready: Callable[[], None] = lambda: None
        self.on_report: Callable[[Report], None] = lambda report: None
        self.facts: Facts
        """What its warm-up has shown."""
        self._spec = spec
        self._first = _framed(sys.path) + _framed(spec)
        self._puts = 0  # that it has not reported
        self._running = 0  # rows with which it goes on by itself
        self._out, self._in = bytearray(), bytearray()
        self._deaths = 0  # since it last made something
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._start()
        self._wait()

    def put(self, orders: Sequence[Order], gone: Sequence[int]) -> None:
        """As `Lane.put`. An order that cannot be pickled fails alone."""
        orders = [order._replace(request=None) for order in orders]  # its class is known in this process only
        try:
            message = _framed((orders, gone))
        except Exception:
            faults = [fault for order in orders if (fault := _unsendable(order)) is not None]
            stuck = {job for job, _, _ in faults}
            message = _framed(([order for order in orders if order.job not in stuck], gone))
            report = Report(faults, [], 0.0, 0.0, puts=0, running=self._running)
            asyncio.get_running_loop().call_soon(self.on_report, report)
        self._puts += 1
        self._out += message
        self._watch(asyncio.get_running_loop())
        self._write()

    def close(self) -> None:
        """End it: it reads the end of its input. What it is making is lost."""
        self._closed = True
        self._hang_up()
        self._end(_END_S)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", f"from brigantine.process import main; main({theirs.fileno()})"]
            try:
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment()
                )
            except OSError:
                ours.close()
                raise
        self._socket = ours
        self._in.clear()
        self._out[:] = self._first

    def _wait(self) -> None:
        """Until it has loaded its model; blocks."""
        limit_s = self._spec.load_timeout_s
        deadline = time.monotonic() + limit_s
        why = ""
        try:
            self._socket.settimeout(limit_s)
            self._socket.sendall(self._out)
            self._out.clear()
            while not self.ready:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                self._take(self._socket.recv(_CHUNK))
        except TimeoutError:
            why = f"its process did not load it within {limit_s:g} s (BRIGANTINE_LOAD_TIMEOUT_S)"
        except OSError as error:
            why = f"its process could not load it{f': {error}' if str(error) else ''}"
        if why:
            self._hang_up()
            raise NotReady(f"{why} ({self._end(_LAST_WORDS_S)}); {_LOOK}")
        self._socket.setblocking(False)

    def _hang_up(self) -> None:
        self.ready = False
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._loop = None
        self._socket.close()

    def _end(self, patience_s: float) -> str:
        """Wait for its end, kill it after that, and say how it ended."""
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "it did not answer"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            self._loop = loop
            loop.add_reader(self._socket, self._read)
        if self._watchdog is None and (self._puts or self._running):
            self._watchdog = loop.call_later(self._spec.batch_timeout_s, self._process.kill)

    def _write(self) -> None:
        assert self._loop is not None, "only what is watched is written to"
        try:
            del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            return  # it is gone; reading says so too
        if self._out:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            self._take(self._socket.recv(_CHUNK))
        except BlockingIOError:
            return
        except Exception as error:  # it has ended, or says what nobody can read
            self._replace(error)

    def _take(self, data: bytes) -> None:
        """Bytes that came, and the messages that they complete.

        Raises:
            ConnectionError: it has ended, or could not load its model.
        """
        if not data:
            raise ConnectionError
        self._in += data
        while len(self._in) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._in)[0]
            if len(self._in) < end:
                return
            body = bytes(self._in[_LENGTH.size : end])
            del self._in[:end]
            self._told(pickle.loads(body))

    def _told(self, message: Report | Fault | Facts) -> None:
        if isinstance(message, Report):
            self._deaths = 0
            self._puts -= message.puts
            self._running = message.running
            self._rearm()
            self.on_report(message)
        elif isinstance(message, Facts):
            self.facts = message
            self.ready = True
            self._rearm()
            self.on_ready()
        else:
            raise ConnectionError(str(message.error))

    def _rearm(self) -> None:
        """Each step has its own time."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if self._loop is not None and (self._puts or self._running):
            self._watchdog = self._loop.call_later(self._spec.batch_timeout_s, self._process.kill)

    def _replace(self, error: Exception) -> None:
        """It is lost with all that is in it. Start another; wait longer each time that one makes nothing."""
        loop = self._loop
        assert loop is not None, "this is called by the loop that watches it"
        self._hang_up()
        self._watchdog = None
        how = ", ".join(filter(None, (self._end(_LAST_WORDS_S), str(error))))
        log.error("the process of %s ended (%s); another one is started", self._spec.path.name, how)
        lost = Fault(_lost(how), "")
        puts, self._puts = self._puts, 0
        self._running = 0
        self._restart_later(loop)
        self.on_report(Report([], [], 0.0, 0.0, puts=puts, lost=lost))

    def _restart_later(self, loop: asyncio.AbstractEventLoop) -> None:
        delay_s = min(_BACK_OFF_S * (2 ** min(self._deaths, 10) - 1), _MOST_BACK_OFF_S)
        self._deaths += 1
        loop.call_later(delay_s, self._restart, loop)

    def _restart(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            return
        try:
            self._start()
        except OSError as error:
            log.error("the process of %s cannot be started: %s", self._spec.path.name, error)
            self._restart_later(loop)
            return
        self._socket.setblocking(False)
        self._watch(loop)
        self._watchdog = loop.call_later(self._spec.load_timeout_s, self._process.kill)
        self._write()


def _lost(how: str) -> GenerationFailed:
    return GenerationFailed(f"the process that made this ended ({how}); send the request again, or {_LOOK}")


def _framed(message: object) -> bytes:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def _unsendable(order: Order) -> Outcome | None:
    try:
        _framed(order)
    except Exception as error:
        return order.job, order.first, Fault.of(error, "put")
    return None


def _framed_report(report: Report) -> bytes:
    """A report to send; a row that cannot be pickled fails alone, and a part that cannot be is not shown."""
    try:
        return _framed(report)
    except Exception:
        outcomes = [_portable(outcome) for outcome in report.outcomes]
        return _framed(report._replace(outcomes=outcomes, parts=()))


def _portable(outcome: Outcome) -> Outcome:
    job, index, _ = outcome
    try:
        pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return job, index, Fault.of(error, "render")
    return outcome


def _station(spec: ProcessSpec) -> tuple[Station, Facts]:
    """A model, loaded and tried."""
    model = Model.open(spec.path, spec.source)
    if model.digest != spec.digest:
        raise ModelInvalid(f"{spec.path}: the model has been replaced since the service started; restart it")
    session = Session.open(model, spec.options, spec.require_gpu)
    plugin = spec.plugin.load()(model, session)
    facts = warm_up(plugin, spec.max_batch)
    use_huge_pages()
    return Station(plugin, spec.max_n), facts


def main(fd: int) -> None:
    """Its life, until the other end of its socket is closed."""
    # Its parent decides when it ends; a Ctrl-C at a terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError), socket.socket(fileno=fd) as parent:
        _live(parent)


def _live(parent: socket.socket) -> None:
    sys.path[:] = _received(parent)
    try:
        station, facts = _station(_received(parent))
    except (EOFError, ConnectionError):
        raise
    except BaseException as error:
        parent.sendall(_framed(Fault.of(error, "load")))
        return
    parent.sendall(_framed(facts))
    # `select` takes no descriptor over 1,023, and the parent may have many connections.
    waiting = select.poll()
    waiting.register(parent, select.POLLIN)
    intake = Intake(facts.max_batch)
    while True:
        is_busy = bool(station.running) or not intake.is_empty
        while not is_busy or waiting.poll(0):
            intake.add(*_received(parent))
            is_busy = True
        report = station.advance(*intake.take(station.running))
        parent.sendall(_framed_report(report))


def _received(parent: socket.socket) -> Any:
    """The next message; waits for it."""

    def read(size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = parent.recv(min(size - len(data), _CHUNK))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)

    return pickle.loads(read(_LENGTH.unpack(read(_LENGTH.size))[0]))
