"""Load: a closed loop by wrk, and an open loop in which requests arrive when they arrive."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import re
import select
import socket
import subprocess
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = "iVBORw0KGgo"
"""How a PNG begins in base64."""
_MAGIC = MAGIC.encode()
GOOD_S = 0.050
"""An answer within this counts as good."""
_CONNECTIONS, _MOST_CONNECTIONS = 64, 512
_LONGEST_S = 30.0
_STRAGGLERS_S = 5.0
_REST_S = 0.01


class Target(NamedTuple):
    """Where to send requests, and their body with %d for the seed."""

    port: int
    path: str
    body: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def request(self, seed: int) -> bytes:
        body = self.body % seed
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Measured(NamedTuple):
    """One window of load. `requests` counts the right answers only."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    good: float | None = None
    """The share of requests that was answered, and within GOOD_S."""

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


def closed(target: Target, connections: int, seconds: int, seed: int) -> Measured:
    """`connections` clients, each of which sends its next request when it has its answer."""
    script = Path(__file__).with_name("wrk.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
    command += [target.url, "--", target.body, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk: exit code {done.returncode}: {done.stdout}{done.stderr}")
    fields = json.loads(lines[-1])
    fields["requests"] -= fields["errors"]
    return Measured(**fields)


def open_loop(target: Target, rate: float, seconds: int, seed: int) -> Measured:
    """Requests at random times, `rate` a second on average (Poisson), whether or not the server keeps up.

    A latency counts from the time at which the request was due, so that a server that stalls pays for everyone who
    came meanwhile.
    """
    return _played(target, rate, seconds, seed, _MOST_CONNECTIONS, _STRAGGLERS_S).measured(seconds)


class Flooded(NamedTuple):
    """What became of a flood."""

    statuses: Counter[int]
    """The answers by their HTTP status, 0 for none and for a 200 without a picture."""
    seconds: float
    """From its beginning to the last answer."""
    client_s: float
    """What the client took of a core meanwhile."""


def flood(target: Target, rate: float, seconds: int, seed: int, connections: int = 4096) -> Flooded:
    """As `open_loop`, with as many connections as clients would open.

    Waits for the last ones as long as the product may take for one. Since no latency is told, it looks at its
    connections and its clock once in some milliseconds, which takes less of the machine that the server is on.
    """
    run = _played(target, rate, seconds, seed, connections, _LONGEST_S, _REST_S)
    answers = run.answers.values()
    statuses = Counter(
        answer.status if answer.status != 200 or answer.has_picture else 0 for answer in answers
    )
    statuses += Counter({0: len(run.requests) - len(run.answers)})
    return Flooded(statuses, run.took_s, run.client_s)


def _played(
    target: Target,
    rate: float,
    seconds: int,
    seed: int,
    connections: int,
    patience_s: float,
    rest_s: float = 0.0,
) -> _Run:
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, int(rate * seconds * 2) + 100))
    due = due[due < seconds] if due[0] < seconds else due[:1] * 0
    requests = [target.request(seed + i) for i in range(len(due))]
    run = _Run(target, requests, due.tolist(), connections, patience_s, rest_s)
    gc.collect()
    gc.disable()  # a collection would look like a slow server
    try:
        run.play()
    finally:
        gc.enable()
    return run


class _Answer(NamedTuple):
    """What is kept of an answer."""

    seconds: float
    """From due to answered."""
    status: int
    has_picture: bool


@dataclass
class _Run:
    """One window: what is due when, and what came of it.

    On the kernel's own interface: it shares the machine with the server, and an event loop takes as long for a request
    as a server does that refuses it.
    """

    target: Target
    requests: list[bytes]
    due_s: list[float]
    most_connections: int
    patience_s: float
    """How long the last answers may take."""
    rest_s: float
    """How long it rests after each look."""
    answers: dict[int, _Answer] = field(default_factory=dict)
    """By number."""
    connections: dict[int, _Connection] = field(default_factory=dict)
    """By file descriptor."""
    idle: deque[_Connection] = field(default_factory=deque)
    waiting: deque[int] = field(default_factory=deque)
    sent: int = 0
    finished: int = 0
    begin_s: float = 0.0
    took_s: float = 0.0
    client_s: float = 0.0

    def play(self) -> None:
        with select.epoll() as self._poll:
            for _ in range(_CONNECTIONS):
                self._open()
            timer = _Timer()
            self._poll.register(timer.fd, select.EPOLLIN)
            self.begin_s, busy_s = time.monotonic() + 0.05, time.thread_time()
            timer.set(self.begin_s + self.due_s[0])
            last_s = self.begin_s + self.due_s[-1] + self.patience_s
            while self.finished < len(self.requests) and (left_s := last_s - time.monotonic()) > 0:
                for fd, events in self._poll.poll(left_s):
                    if fd == timer.fd:
                        self._on_time(timer)
                    else:
                        self._on_event(self.connections[fd], events)
                if self.rest_s:
                    time.sleep(self.rest_s)
            self.took_s = time.monotonic() - self.begin_s
            self.client_s = time.thread_time() - busy_s
            os.close(timer.fd)
            for connection in self.connections.values():
                connection.socket.close()

    def _on_time(self, timer: _Timer) -> None:
        timer.read()
        now = time.monotonic() - self.begin_s
        while self.sent < len(self.due_s) and self.due_s[self.sent] <= now:
            self._send(self.sent)
            self.sent += 1
        if self.sent < len(self.due_s):
            timer.set(self.begin_s + self.due_s[self.sent])

    def _send(self, number: int) -> None:
        """On the connection that has been idle for longest, so that all of them are used."""
        if self.idle:
            self._ask(self.idle.popleft(), number)
            return
        self.waiting.append(number)
        if len(self.connections) < self.most_connections:
            self._open()

    def _ask(self, connection: _Connection, number: int) -> None:
        connection.number, connection.answer = number, b""
        with suppress(OSError):  # closed meanwhile, which its reading says too
            connection.socket.send(self.requests[number])

    def _open(self) -> None:
        try:
            own = socket.socket()
        except OSError:  # too many: what waits goes to another one, or has no answer in the end
            return
        own.setblocking(False)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.connect_ex(("127.0.0.1", self.target.port))
        self.connections[own.fileno()] = _Connection(own)
        self._poll.register(own.fileno(), select.EPOLLOUT)

    def _on_event(self, connection: _Connection, events: int) -> None:
        if events & select.EPOLLOUT and not events & (select.EPOLLERR | select.EPOLLHUP):
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN)
            self._ready(connection)
            return
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.answer += data
        if connection.number >= 0 and _is_whole(connection.answer):
            number, connection.number = connection.number, -1
            late_s = time.monotonic() - self.begin_s - self.due_s[number]
            answer, connection.answer = connection.answer, b""
            self.answers[number] = _Answer(late_s, int(answer[9:12]), _MAGIC in answer)
            self.finished += 1
            self._ready(connection)

    def _ready(self, connection: _Connection) -> None:
        if self.waiting:
            self._ask(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)

    def _close(self, connection: _Connection) -> None:
        """What it was asked has no answer; what waits goes to another one, or has none in the end."""
        del self.connections[connection.socket.fileno()]
        connection.socket.close()
        if connection.number >= 0:
            self.finished += 1
        elif connection in self.idle:
            self.idle.remove(connection)

    def measured(self, seconds: int) -> Measured:
        answers = self.answers.values()
        right = [answer.seconds for answer in answers if answer.status // 100 == 2 and answer.has_picture]
        p50, p90, p99, p999 = (
            1e3 * np.percentile(right or [math.inf], (50, 90, 99, 99.9), method="higher")
        ).tolist()
        good = sum(s <= GOOD_S for s in right) / len(self.requests)
        last = max([seconds, *(self.due_s[n] + answer.seconds for n, answer in self.answers.items())])
        return Measured(len(right), len(self.requests) - len(right), last, p50, p90, p99, p999, good)


@dataclass(eq=False)
class _Connection:
    """One connection with at most one request in flight."""

    socket: socket.socket
    number: int = -1
    """Of the request in flight, or -1."""
    answer: bytes = b""


def _is_whole(answer: bytes) -> bool:
    """Whether an HTTP answer has come to its end; one that does not say where that is never has."""
    head = answer.find(b"\r\n\r\n")
    if length := _LENGTH.search(answer, 0, head + 2):
        return len(answer) >= head + 4 + int(length[1])
    return answer.endswith(b"\r\n0\r\n\r\n") and _CHUNKED.search(answer, 0, head + 2) is not None


_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")


class _Timer:
    """A timer of the kernel's, to the microsecond; those of an event loop go by milliseconds."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)

    def set(self, at_s: float) -> None:
        whole = int(at_s)
        once = (ctypes.c_long * 4)(0, 0, whole, int(1e9 * (at_s - whole)))
        absolute = 1
        if self._libc.timerfd_settime(self.fd, absolute, ctypes.byref(once), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def read(self) -> None:
        os.read(self.fd, 8)
