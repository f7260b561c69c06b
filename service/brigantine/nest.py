"""Nest: a process that has imported what every worker needs, and of which workers are forked.

A worker that is started by itself imports for a second, and keeps 60 MB of its own for that. One that is forked has it
at once, and shares the memory. The nest has no event loop, no plugin, no model and no ONNX Runtime, which starts a
thread as soon as it is imported; it ends with the supervisor.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import logging
import os
import pickle
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from .drain import end_with_parent

__all__ = ["Nest", "Order"]

log = logging.getLogger(__name__)

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_NAME, _WORKERS_NAME = b"nest", b"worker"
"""Of the processes, for `ps -o comm`."""
_HELD = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
"""These are the supervisor's to heed; of a worker, from when it is one."""
_PATIENCE_S = 60.0
"""How long the nest may take for a worker, its own imports before the first one included."""
_CANNOT = b"none"
"""What the nest says when there was no worker to be had."""
_MOST_BYTES = 1 << 18
_TICK_S = 0.001


class Order(NamedTuple):
    """A worker as it would be started by itself: `python -m module ...`."""

    arguments: Sequence[str]
    """The module's name, and what it is given."""
    environment: Mapping[str, str]
    folder: str
    listener: int
    """The number by which it knows its socket."""


class Nest:
    """The nest, as the supervisor sees it.

    Make one while this process has neither threads of its own nor an event loop.

    Args:
        modules: what to import there.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a worker is not the nest's child for long, but this process's
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        gc.collect()
        gc.freeze()  # a collection writes to all that it looks at, which is shared until then
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)  # what is held, and not ignored, is not lost
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            _brood(theirs, modules)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        ours.settimeout(_PATIENCE_S)
        self._socket = ours

    def hatch(self, order: Order) -> int | None:
        """Fork a worker, and say its process's number; None when the nest cannot, or does not answer any more."""
        if self._socket.fileno() < 0:
            return None
        try:
            socket.send_fds(self._socket, [pickle.dumps(order)], [order.listener])
            said = self._socket.recv(_MOST_BYTES)
        except OSError:
            said = b""
        if not said:
            log.error("the nest %d is lost: from now on each worker is started by itself", self.pid)
            self._socket.close()  # what it says later would answer another order
        return None if said in (b"", _CANNOT) else int(said)


def _brood(orders: socket.socket, modules: Iterable[str]) -> NoReturn:
    """What the nest does until its supervisor has gone."""
    try:
        supervisor = os.getppid()
        _prctl(_PR_SET_NAME, ctypes.c_char_p(_NAME))
        for module in modules:
            importlib.import_module(module)
        gc.freeze()
        while True:
            said, [*received], *_ = socket.recv_fds(orders, _MOST_BYTES, 1)
            if not said or _has_hung_up(orders):
                break
            orders.send(_fork(pickle.loads(said), orders, received[0], supervisor))
            os.close(received[0])
    except OSError:
        pass  # the supervisor has gone
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _has_hung_up(orders: socket.socket) -> bool:
    """Whether nobody would know of a worker, having waited for it too long."""
    try:
        return not orders.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _fork(order: Order, orders: socket.socket, listener: int, supervisor: int) -> bytes:
    """Fork a worker by way of a process that ends at once, so that it falls to the supervisor; its number."""
    reading, writing = os.pipe()
    try:
        between = os.fork()
    except OSError:  # there is no room now
        os.close(reading)
        os.close(writing)
        return _CANNOT
    if not between:
        try:
            between = os.getpid()
            worker = os.fork()
            if not worker:
                os.close(reading)
                os.close(writing)
                orders.close()
                while os.getppid() == between:
                    time.sleep(_TICK_S)
                _work(order, listener, supervisor)
            os.write(writing, b"%d" % worker)
        finally:
            os._exit(0)
    os.waitpid(between, 0)
    os.close(writing)
    try:
        return os.read(reading, _MOST_BYTES) or _CANNOT
    finally:
        os.close(reading)


def _work(order: Order, listener: int, supervisor: int) -> NoReturn:
    """Be that worker."""
    code = 1
    try:
        end_with_parent()
        if os.getppid() != supervisor:  # it has gone before that was said
            os._exit(0)
        _settle(order, listener)
        runpy.run_module(order.arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if isinstance(leave.code, str):
            print(leave.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # what the supervisor has begun is not this process's to end


def _settle(order: Order, listener: int) -> None:
    """Take what a process of its own would be given, and leave what the supervisor had."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(_WORKERS_NAME))
    atexit._clear()  # pyright: ignore[reportPrivateUsage]
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    if listener != order.listener:
        os.dup2(listener, order.listener)
        os.close(listener)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.argv[:] = order.arguments
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed()  # else all workers draw the same; Python's own `random` sees to that by itself


def _prctl(option: int, value: object) -> None:
    ctypes.CDLL(None).prctl(option, value)
