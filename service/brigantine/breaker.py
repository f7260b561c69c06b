"""The circuit breaker: a model that fails again and again rests, and costs neither its clients nor the others time.

After some failures in a row its requests are refused for some seconds. Then one is let through: if it succeeds the
model is back, and if not it rests for twice as long (M. Nygard, Release It!, "Circuit Breaker").
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType

from .errors import BrigantineError, ModelFailing

__all__ = ["Breaker"]

log = logging.getLogger(__name__)

_REST_S, _MOST_REST_S = 1.0, 60.0


class Breaker:
    """Around each request of one model, as a context manager. Errors with status 500 are failures; others say nothing.

    Args:
        model: its name.
        limit: how many failures in a row it may have; 0 for any number.
        shown: told when it begins and when it ends to rest.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        model: str,
        limit: int,
        shown: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._limit = limit
        self._shown = shown
        self._clock = clock
        self._failures = 0
        self._rest_s = _REST_S
        self._until: float | None = None  # None: it works
        self._probing = False

    def __enter__(self) -> None:
        if self._until is None:
            return
        left_s = self._until - self._clock()
        if left_s > 0 or self._probing:
            raise ModelFailing(
                f"model {self._model!r} failed {self._failures} times in a row and rests; try again in "
                f"{max(left_s, 1.0):.0f} s. What it raised is in the log",
                max(left_s, 1.0),
            )
        self._probing = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._succeed()
        elif isinstance(error, Exception) and getattr(error, "status", 500) == BrigantineError.status:
            self._fail()
        else:
            self._probing = False

    def _succeed(self) -> None:
        self._failures = 0
        if self._until is not None:
            log.warning("model %s answers again", self._model)
            self._until, self._probing, self._rest_s = None, False, _REST_S
            self._shown(False)

    def _fail(self) -> None:
        self._failures += 1
        resting = self._until is not None
        if not self._limit or self._failures < self._limit or (resting and not self._probing):
            return
        log.error(
            "model %s failed %d times in a row: it rests for %.0f s",
            self._model,
            self._failures,
            self._rest_s,
        )
        self._until = self._clock() + self._rest_s
        self._rest_s = min(2 * self._rest_s, _MOST_REST_S)
        self._probing = False
        self._shown(True)
