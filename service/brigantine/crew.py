"""The crew: processes that make content, each one batch at a time.

The Python code of one process takes turns (the GIL): preparing and encoding one batch would hold up another's, and the
answers to everybody. So on a CPU batches are made by processes, the hands, one for each core. One that dies takes only
the batch that it was making with it, and is replaced. Each loads every model, as its parent has for its checks.

A hand runs `main`. It reads from its parent alone, and ends when that has gone.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from .errors import GenerationFailed, ModelInvalid, NotReady
from .model import Model
from .plugin import Plugin
from .session import Session, SessionOptions
from .station import Fault, Order, Outcome, Report, Station

__all__ = ["Crew", "HandLane", "Post"]

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("!I")
_START_S = 60.0
"""How long a hand may take to load its models."""
_BACK_OFF_S, _MOST_BACK_OFF_S = 0.1, 10.0
_END_S, _LAST_WORDS_S = 5.0, 0.2
"""How long hands may take to end together, and one whose work is lost anyway."""
_CHUNK = 1 << 20


class Post(NamedTuple):
    """A model that every hand loads, as its parent has."""

    name: str
    path: Path
    source: str
    digest: str
    plugin: type[Plugin[Any]]
    options: SessionOptions
    max_n: int


class Crew:
    """Some hands, each of which can make batches of every model.

    Args:
        posts: the models.
        size: how many hands.

    Raises:
        NotReady: a hand did not start; carries its reason.
    """

    def __init__(self, posts: Sequence[Post], size: int) -> None:
        self._hands: list[_Hand] = []
        try:
            for _ in range(size):
                self._hands.append(_Hand(posts))  # they load at the same time
            for hand in self._hands:
                hand.wait()
        except (NotReady, OSError):
            self.close()
            raise

    def lanes(self, model: str) -> list[HandLane]:
        """A lane to each hand, for the batches of this model."""
        return [HandLane(hand, model) for hand in self._hands]

    def close(self) -> None:
        """End all hands; what they are making is lost."""
        for hand in self._hands:
            hand.hang_up()
        deadline = time.monotonic() + _END_S
        for hand in self._hands:
            hand.end(max(0.0, deadline - time.monotonic()))


class HandLane:
    """See `brigantine.scheduler.Lane`. The lanes of several models may lead to one hand, which takes them in turn."""

    def __init__(self, hand: _Hand, model: str) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self._hand = hand
        self._model = model
        hand.lanes.append(self)

    @property
    def ready(self) -> bool:
        """Whether its hand has loaded its models."""
        return self._hand.ready

    def put(self, orders: Sequence[Order], gone: Sequence[int], told: Callable[[Report], None]) -> None:
        """As `Lane.put`. An order that cannot be pickled fails alone, with what the others bring."""
        orders = [order._replace(request=None) for order in orders]  # its class is known in this process only
        try:
            message = _framed((self._model, orders, gone))
        except Exception:
            faults = [fault for order in orders if (fault := _unsendable(order)) is not None]
            stuck = {job for job, _, _ in faults}
            message = _framed((self._model, [order for order in orders if order.job not in stuck], gone))
            self._hand.put(_Task(message, orders, _with(told, faults)))
            return
        self._hand.put(_Task(message, orders, told))

    def close(self) -> None:
        """The crew ends its hands."""


class _Task(NamedTuple):
    message: bytes
    orders: Sequence[Order]
    told: Callable[[Report], None]


class _Hand:
    """One process, as its parent sees it: tasks go out, and their reports come back in the same order."""

    def __init__(self, posts: Sequence[Post]) -> None:
        self.ready = False
        """Whether it has loaded all models."""
        self.lanes: list[HandLane] = []
        self._first = _framed(sys.path) + _framed(list(posts))
        self._tasks: deque[_Task] = deque()
        self._out, self._in = bytearray(), bytearray()
        self._deaths = 0  # since it last made something
        self._retired = False
        self._watched: asyncio.AbstractEventLoop | None = None
        self._start()

    def _start(self) -> None:
        """Start its process, with all that it has not reported yet."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", f"from brigantine.crew import main; main({theirs.fileno()})"]
            try:
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
                )
            except OSError:
                ours.close()
                raise
        self._socket = ours
        self._in.clear()
        self._out[:] = self._first + b"".join(task.message for task in self._tasks)

    def wait(self) -> None:
        """Until it has loaded all models; blocks.

        Raises:
            NotReady: it could not, or took too long.
        """
        self._socket.settimeout(_START_S)
        try:
            self._socket.sendall(self._out)
            self._out.clear()
            while not self.ready:
                self._take(self._socket.recv(_CHUNK))
        except TimeoutError as error:
            raise NotReady(f"a process of the crew did not load its models in {_START_S:.0f} s") from error
        except OSError as error:
            raise NotReady(f"a process of the crew could not load its models: {error}") from error
        finally:
            self._socket.setblocking(False)

    def put(self, task: _Task) -> None:
        """Send a task; only while it is ready."""
        self._tasks.append(task)
        self._out += task.message
        self._watch(asyncio.get_running_loop())
        self._write()

    def hang_up(self) -> None:
        """Let it end: it reads the end of its input. For good."""
        self._retired = True
        self.ready = False
        if self._watched is not None and not self._watched.is_closed():
            self._watched.remove_reader(self._socket)
            self._watched.remove_writer(self._socket)
        self._watched = None
        self._socket.close()

    def end(self, patience_s: float) -> str:
        """Wait for its end, kill it after that, and say how it ended."""
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "it did not answer"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watched is not loop:
            self._watched = loop
            loop.add_reader(self._socket, self._read)

    def _write(self) -> None:
        assert self._watched is not None, "only what is watched is written to"
        try:
            del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            return  # it is gone; reading says so too
        if self._out:
            self._watched.add_writer(self._socket, self._write)
        else:
            self._watched.remove_writer(self._socket)

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
            ConnectionError: it has ended, or could not load its models.
        """
        if not data:
            raise ConnectionError("it ended")
        self._in += data
        while len(self._in) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._in)[0]
            if len(self._in) < end:
                return
            body = bytes(self._in[_LENGTH.size : end])
            del self._in[:end]
            self._told(pickle.loads(body))

    def _told(self, message: Report | Fault | None) -> None:
        if isinstance(message, Report):
            self._deaths = 0
            self._tasks.popleft().told(message)
        elif message is None:
            self.ready = True
            for lane in self.lanes:
                lane.on_ready()
        else:
            raise ConnectionError(str(message.error))

    def _replace(self, error: Exception) -> None:
        """It is lost with what it was making. Start another; wait longer each time that one makes nothing."""
        loop, was_ready = self._watched, self.ready
        assert loop is not None, "this is called by the loop that watches it"
        self.hang_up()
        self._retired = False
        how = f"{self.end(_LAST_WORDS_S)}, {error}"
        log.error("a process of the crew ended (%s); another one is started", how)
        # The first task is what it died of, unless it died before it could begin.
        lost = [self._tasks.popleft()] if was_ready and self._tasks else []
        if not was_ready:
            lost, self._tasks = list(self._tasks), deque()
        self._restart_later(loop)
        for task in lost:
            task.told(Report([_lost(order, how) for order in task.orders], [], 0.0, 0.0))

    def _restart_later(self, loop: asyncio.AbstractEventLoop) -> None:
        delay_s = min(_BACK_OFF_S * (2 ** min(self._deaths, 10) - 1), _MOST_BACK_OFF_S)
        self._deaths += 1
        loop.call_later(delay_s, self._restart, loop)

    def _restart(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._retired:
            return
        try:
            self._start()
        except OSError as error:
            log.error("a process of the crew cannot be started: %s", error)
            self._restart_later(loop)
            return
        self._socket.setblocking(False)
        self._watch(loop)
        self._write()


def _lost(order: Order, how: str) -> Outcome:
    error = GenerationFailed(
        f"the process that made this ended ({how}); send the request again, or look for a plugin or a library that "
        "crashes"
    )
    return order.job, order.first, Fault(error, "")


def _framed(message: object) -> bytes:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def _unsendable(order: Order) -> Outcome | None:
    try:
        _framed(order)
    except Exception as error:
        return order.job, order.first, Fault.of(error, "put")
    return None


def _with(told: Callable[[Report], None], faults: list[Outcome]) -> Callable[[Report], None]:
    def also_told(report: Report) -> None:
        told(report._replace(outcomes=[*report.outcomes, *faults]))

    return also_told


def _framed_report(report: Report) -> bytes:
    """A report to send; a row that cannot be pickled fails alone."""
    try:
        return _framed(report)
    except Exception:
        return _framed(report._replace(outcomes=[_portable(outcome) for outcome in report.outcomes]))


def _portable(outcome: Outcome) -> Outcome:
    job, index, _ = outcome
    try:
        pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return job, index, Fault.of(error, "render")
    return outcome


def _station(post: Post) -> Station:
    """A model, loaded and run once."""
    model = Model.open(post.path, post.source)
    if model.digest != post.digest:
        raise ModelInvalid(f"{post.path}: the model has been replaced since the service started; restart it")
    station = Station(post.plugin(model, Session.open(model, post.options)), post.max_n)
    [(_, _, outcome)] = station.advance([Order(0, {}, None, 0, post.plugin.types[0], 0, 1)]).outcomes
    if isinstance(outcome, Fault):
        raise outcome.raised()
    return station


def main(fd: int) -> None:
    """A hand's life, until the other end of its socket is closed."""
    # Its parent decides when it ends; a Ctrl-C at a terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with (
        suppress(EOFError, ConnectionError),
        socket.socket(fileno=fd) as parent,
        parent.makefile("rwb") as stream,
    ):
        _live(cast("BinaryIO", stream))


def _live(stream: BinaryIO) -> None:
    def received() -> Any:
        length = stream.read(_LENGTH.size)
        if not length:
            raise EOFError
        return pickle.loads(stream.read(_LENGTH.unpack(length)[0]))

    def send(framed: bytes) -> None:
        stream.write(framed)
        stream.flush()

    sys.path[:] = received()
    try:
        posts: list[Post] = received()
        stations = {post.name: _station(post) for post in posts}
    except (EOFError, ConnectionError):
        raise
    except BaseException as error:
        send(_framed(Fault.of(error, "load")))
        return
    send(_framed(None))
    while True:
        model, orders, gone = received()
        send(_framed_report(stations[model].advance(orders, gone)))
