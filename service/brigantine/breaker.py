"""The circuit breaker: a model that fails again and again rests, and costs neither its clients nor the others time.

After some failures in a row its requests are refused for some seconds. Then one is let through: if it succeeds the
model is back, and if not it rests for twice as long (M. Nygard, Release It!, "Circuit Breaker").
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from weakref import ref

from .errors import BrigantineError, ModelFailing

__all__ = ["Attempt", "Breaker"]

log = logging.getLogger(__name__)

_REST_S, _MOST_REST_S = 1.0, 60.0


class Breaker:
    """Errors with status 500 are failures; others say nothing.

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
        self._last: ref[BrigantineError] | None = None
        self._rest_s = _REST_S
        self._until: float | None = None  # None: it works
        self._probing = False
        self._ordinary = Attempt(self, probe=False)

    def attempt(self) -> Attempt:
        """One request that begins. Whoever has it must `end` it.

        Raises:
            ModelFailing: the model rests; carries the seconds after which it may be asked again.
        """
        if self._until is None:
            return self._ordinary
        left_s = self._until - self._clock()
        if left_s > 0 or self._probing:
            raise ModelFailing(
                f"model {self._model!r} failed {self._failures} times in a row and rests; try again in "
                f"{max(left_s, 1.0):.0f} s. What it raised is in the log",
                max(left_s, 1.0),
            )
        self._probing = True
        return Attempt(self, probe=True)

    def end(self, error: BaseException | None, probe: bool) -> None:
        """An attempt has ended."""
        if probe:
            self._probing = False
        if error is None:
            self._succeed()
        elif isinstance(error, Exception) and getattr(error, "status", 500) == BrigantineError.status:
            self._fail(error, probe)

    def _succeed(self) -> None:
        self._failures = 0
        self._last = None
        if self._until is not None:
            log.warning("model %s answers again", self._model)
            self._until, self._rest_s = None, _REST_S
            self._shown(False)

    def _fail(self, error: Exception, probe: bool) -> None:
        if self._last is None or error is not self._last():  # one event may fail many requests
            self._failures += 1
            # An error remembers where it was raised, and so the request; builtin ones are few.
            self._last = ref(error) if isinstance(error, BrigantineError) else None
        late = self._until is not None and not probe
        if not self._limit or self._failures < self._limit or late:
            return
        log.error(
            "model %s failed %d times in a row: it rests for %.0f s",
            self._model,
            self._failures,
            self._rest_s,
        )
        self._until = self._clock() + self._rest_s
        self._rest_s = min(2 * self._rest_s, _MOST_REST_S)
        self._shown(True)


class Attempt:
    """One request, as the breaker sees it."""

    __slots__ = ("_breaker", "_probe")

    def __init__(self, breaker: Breaker, probe: bool) -> None:
        self._breaker = breaker
        self._probe = probe

    def end(self, error: BaseException | None) -> None:
        """It has been answered, or has failed by this error."""
        self._breaker.end(error, self._probe)
