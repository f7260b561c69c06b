"""The access log: a line for each request that is over."""

from __future__ import annotations

import asyncio
import logging
import time
from select import PIPE_BUF

__all__ = ["ACCESS", "AccessLog"]

ACCESS = "brigantine.access"
"""The logger; what it is given are whole lines, several at a time, with a time and a level of their own."""

_log = logging.getLogger(ACCESS)
_HOLD_S = 0.1
_MOST_BYTES = PIPE_BUF
"""What goes into a pipe in one piece, and not between the lines of another worker."""


class AccessLog:
    """Writes the lines of a moment together: one by one they took a tenth of the time of a small image.

    They are written when `_HOLD_S` is over, when there are many, and when somebody says `flush`; a process that is
    killed takes those that are not with it. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._clock = ""

    def note(self, method: str, path: str, status: int, took_s: float, request_id: str) -> None:
        """A request is over. `path` and `request_id` are ASCII without line breaks."""
        now = time.time()
        line = f"{self._at(now)} INFO {ACCESS} {method} {path} {status} {1e3 * took_s:.1f} ms {request_id}"
        if self._bytes + len(line) + 1 > _MOST_BYTES:
            self.flush()
        self._lines.append(line)
        self._bytes += len(line) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_HOLD_S, self.flush)

    def flush(self) -> None:
        """Write what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._bytes = self._lines, [], 0
        if lines:
            _log.info("\n".join(lines))

    def _at(self, now: float) -> str:
        """As `logging` writes it. A second is put into words once."""
        second, rest = divmod(now, 1)
        if second != self._second:
            self._second = int(second)
            self._clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        return f"{self._clock},{int(1e3 * rest):03d}"
