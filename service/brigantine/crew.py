"""The crew: processes that make content, each one batch at a time.

The Python code of one process takes turns (the GIL): preparing and encoding one batch would hold up another's, and the
answers to everybody. So on a CPU batches are made by processes, the hands, one for each core. One that dies takes only
what it was making with it, and is replaced.

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
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .errors import GenerationFailed, NotReady
from .model import Model
from .plugin import Plugin
from .session import Session, SessionOptions
from .station import Fault, Order, Report, Station

__all__ = ["Crew", "HandLane", "Post"]

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("!I")
_START_S = 60.0
"""How long a hand may take to load its models."""
_BACK_OFF_S, _MOST_BACK_OFF_S = 0.1, 10.0
_CHUNK = 1 << 20


class Post(NamedTuple):
    """A model that every hand loads."""

    name: str
    path: Path
    source: str
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
        self._hands = [_Hand(posts) for _ in range(size)]  # they load at the same time
        try:
            for hand in self._hands:
                hand.wait()
        except NotReady:
            self.close()
            raise

    def lanes(self, model: str) -> list[HandLane]:
        """A lane to each hand, for the batches of this model."""
        return [HandLane(hand, model) for hand in self._hands]

    def close(self) -> None:
        """End all hands; what they are making is lost."""
        for hand in self._hands:
            hand.close()


class HandLane:
    """See `brigantine.scheduler.Lane`. The lanes of several models may lead to one hand, which takes them in turn."""

    def __init__(self, hand: _Hand, model: str) -> None:
        self._hand = hand
        self._model = model

    def put(self, orders: Sequence[Order], gone: Sequence[int], told: Callable[[Report], None]) -> None:
        """As `Lane.put`."""
        self._hand.put(self._model, orders, gone, told)

    def close(self) -> None:
        """The crew ends its hands."""


class _Task(NamedTuple):
    message: bytes
    orders: Sequence[Order]
    told: Callable[[Report], None]


class _Hand:
    """One process, as its parent sees it: tasks go out, and their reports come back in the same order."""

    def __init__(self, posts: Sequence[Post]) -> None:
        self._first = _framed((sys.path, list(posts)))
        self._tasks: deque[_Task] = deque()
        self._out = bytearray()
        self._in = bytearray()
        self._deaths = 0  # since it last made something
        self._watched: asyncio.AbstractEventLoop | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", f"from brigantine.crew import main; main({theirs.fileno()})"]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._ready = False
        self._out += self._first
        for task in self._tasks:
            self._out += task.message

    def wait(self) -> None:
        """Until it has loaded all models; blocks.

        Raises:
            NotReady: it could not, or took too long.
        """
        self._socket.settimeout(_START_S)
        try:
            self._socket.sendall(self._out)
            self._out.clear()
            while not self._ready:
                self._take(self._socket.recv(_CHUNK))
        except TimeoutError as error:
            raise NotReady(f"a process of the crew did not load its models in {_START_S:.0f} s") from error
        except OSError as error:
            raise NotReady(
                f"a process of the crew could not load its models: {self._how()}, {error}"
            ) from error
        finally:
            self._socket.setblocking(False)

    def put(
        self, model: str, orders: Sequence[Order], gone: Sequence[int], told: Callable[[Report], None]
    ) -> None:
        task = _Task(_framed((model, orders, gone)), orders, told)
        self._tasks.append(task)
        if self._process is not None:  # else it goes out when another one has been started
            self._out += task.message
            self._watch(asyncio.get_running_loop())
            self._write()

    def close(self) -> None:
        if self._process is None:
            return
        if self._watched is not None and not self._watched.is_closed():
            self._watched.remove_reader(self._socket)
            self._watched.remove_writer(self._socket)
        self._socket.close()  # it reads the end of its input, and ends
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = self._watched = None

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watched is not loop:
            self._watched = loop
            loop.add_reader(self._socket, self._read)

    def _write(self) -> None:
        try:
            del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            return  # it is gone; reading says so too
        assert self._watched is not None, "only what is watched is written to"
        if self._out:
            self._watched.add_writer(self._socket, self._write)
        else:
            self._watched.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            self._take(self._socket.recv(_CHUNK))
        except BlockingIOError:
            return
        except OSError:
            self._replace()

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
            message = pickle.loads(memoryview(self._in)[_LENGTH.size : end])
            del self._in[:end]
            self._told(message)

    def _told(self, message: Report | Fault | None) -> None:
        if isinstance(message, Report):
            self._deaths = 0
            self._tasks.popleft().told(message)
        elif message is None:
            self._ready = True
        else:
            raise ConnectionError(str(message.error))

    def _replace(self) -> None:
        """It is lost with all that it was given. Start another; wait longer each time that one makes nothing."""
        loop, how = self._watched, self._how()
        assert loop is not None, "this is called by the loop that watches it"
        log.error(
            "a process of the crew ended (%s); what it was making is lost, and another one is started", how
        )
        self.close()
        self._in.clear()
        self._out.clear()
        lost, self._tasks = self._tasks, deque()
        delay_s = min(_BACK_OFF_S * (2**self._deaths - 1), _MOST_BACK_OFF_S)
        self._deaths += 1
        loop.call_later(delay_s, self._restart, loop)
        error = GenerationFailed(
            f"the process that made this ended ({how}); send the request again, or look for a plugin or a library "
            "that crashes"
        )
        for task in lost:
            fault = Fault(error, "")
            task.told(Report([(order.job, order.first, fault) for order in task.orders], [], 0.0))

    def _restart(self, loop: asyncio.AbstractEventLoop) -> None:
        self._start()
        self._socket.setblocking(False)
        self._watch(loop)
        self._write()

    def _how(self) -> str:
        assert self._process is not None, "it has been started"
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _framed(message: object) -> bytes:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def _station(post: Post) -> Station:
    """A model, loaded and run once."""
    model = Model.open(post.path, post.source)
    station = Station(post.plugin(model, Session.open(model, post.options)), post.max_n)
    [(_, _, outcome)] = station.advance([Order(0, {}, 0, post.plugin.types[0], 0, 1)]).outcomes
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

        def received() -> Any:
            length = stream.read(_LENGTH.size)
            if not length:
                raise EOFError
            return pickle.loads(stream.read(_LENGTH.unpack(length)[0]))

        def send(message: object) -> None:
            stream.write(_framed(message))
            stream.flush()

        sys.path[:], posts = received()
        try:
            stations = {post.name: _station(post) for post in posts}
        except BaseException as error:
            send(Fault.of(error, "load"))
            return
        send(None)
        while True:
            model, orders, gone = received()
            send(stations[model].advance(orders, gone))
