"""Heads: what is known of a request before its body, found out once for all that begin with the same bytes.

Clients that keep a connection send the same head again and again. Parsing it, looking for its route and reading its
headers took a good part of what HTTP costs a small image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.types import Scope

from .http import patience_s
from .plan import Draft, Planner

__all__ = ["Head", "Heads", "own_id"]

_END = b"\r\n\r\n"
_MOST, _LONGEST = 256, 4096
"""Heads that are kept, and the bytes of one: they are the clients' to choose."""
_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Head(NamedTuple):
    """The head of a request for one generation."""

    scope: Mapping[str, Any]
    """What it says, as ASGI has it."""
    draft: Draft
    """Plans the answer, given the body."""
    timeout_s: float
    """How long the client will wait."""
    request_id: str
    """The client's own, or empty."""

    @classmethod
    def of(cls, scope: Scope, planner: Planner) -> Head:
        """What a request says before its body; raises what is wrong with that."""
        request = Request(scope)
        return cls(scope, planner(request), patience_s(request), own_id(scope))


class Heads:
    """Those that were new last. One for all connections of a process, which differ in nothing that a head says."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Head, int]] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """Of a request that is all that came, its head and its body; None where the head is not known."""
        end = data.find(_END) + len(_END)
        known = self._known.get(data[:end])
        if known is None or len(data) != end + known[1]:
            return None
        return known[0], data[end:]

    def learn(self, data: bytes, head: Head, size: int) -> None:
        """Remember the head of a request.

        Args:
            data: the packet that it came in; it must have all of it, and nothing else.
            head: what it says.
            size: bytes of its body, as it announces them.
        """
        text = data[: len(data) - size]
        announced = [value for name, value in head.scope["headers"] if name == b"content-length"]
        if len(text) > _LONGEST or text.find(_END) != len(text) - len(_END) or announced != [b"%d" % size]:
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[text] = head, size


def own_id(scope: Scope) -> str:
    """The client's own id when it sent a sane one, so that its log and ours can be joined; else nothing."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value.decode("latin-1")):
            return value.decode("latin-1")
    return ""
