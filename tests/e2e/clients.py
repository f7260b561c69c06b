"""Clients that ask without a pause, and keep account of what they were answered."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count

_PATH = "/v1/models/mnist/generate"
_PAUSE_S = 0.05


@dataclass
class Account:
    """What was answered, and how long the longest wait for an answer or an error was."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    broken: list[str] = field(default_factory=list[str])
    """What befell requests that got no answer."""
    longest_s: float = 0.0

    @property
    def asked(self) -> int:
        return sum(self.statuses.values()) + len(self.broken)


class Client:
    """Asks one address, and the next one when it is refused or its connection breaks, as a load balancer does.

    Args:
        addresses: where to ask, the best first.
        tries: how often, for one request.
    """

    def __init__(self, addresses: Sequence[str], tries: int) -> None:
        self._connections = [HTTPConnection(one, timeout=30) for one in addresses]
        self._tries = tries
        self._turn = 0

    def ask(self, seed: int) -> int:
        """The status of the answer.

        Raises:
            HTTPException, OSError: the last try had none.
        """
        for left in reversed(range(self._tries)):
            connection = self._connections[self._turn % len(self._connections)]
            try:
                connection.request("POST", _PATH, json.dumps({"seed": seed}))
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (HTTPException, OSError):
                connection.close()
                if not left:
                    raise
            else:
                if status != 503 or not left:
                    return status
            self._turn += 1
            if self._turn % len(self._connections) == 0:
                time.sleep(_PAUSE_S)
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@contextmanager
def load(
    addresses: Sequence[str], clients: int, tries: int = 1, limit: int | None = None
) -> Iterator[tuple[Account, Callable[[], None]]]:
    """So many clients ask until the block ends, or until there were `limit` requests.

    Yields the account, and what waits until they have ended.
    """
    account, lock, over, numbers = Account(), threading.Lock(), threading.Event(), count()

    def run() -> None:
        client = Client(addresses, tries)
        while not over.is_set():
            with lock:
                number = next(numbers)
            if limit is not None and number >= limit:
                break
            begin, broken, status = time.monotonic(), "", 0
            try:
                status = client.ask(number)
            except (HTTPException, OSError) as error:
                broken = repr(error)
            with lock:
                account.longest_s = max(account.longest_s, time.monotonic() - begin)
                if broken:
                    account.broken.append(broken)
                else:
                    account.statuses[status] += 1
        client.close()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(clients)]

    def wait() -> None:
        for thread in threads:
            thread.join()

    for thread in threads:
        thread.start()
    try:
        yield account, wait
    finally:
        over.set()
        wait()
