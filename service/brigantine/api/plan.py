"""A plan: what one request asks of a model, and how its answer is written.

What makes one generation is planned without waiting for anything: then it does not matter whether a task waits for the
rest (`made`), or the connection itself (`brigantine.api.direct`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..engine import Caller, Generation, Making, Served
from .http import Watch, engine_of, patience_s, read_object

__all__ = ["Draft", "Plan", "Planner", "made"]


class Plan(NamedTuple):
    """One generation."""

    served: Served
    body: Mapping[str, Any]
    """The plugin's Params with `n` and `seed`."""
    media_type: str | None
    """One of the plugin's types, or None for its default."""
    answer: Callable[[Generation], Response]
    also: Iterable[str] = ()
    """Fields that the route has taken out of the body."""

    def begin(self, caller: Caller) -> Making:
        """Begin to make it; raises what `Served.begin` raises."""
        return self.served.begin(self.body, self.media_type, caller, self.also)


Draft = Callable[[dict[str, Any], int], Plan | Response]
"""Plans a request, given its body and the bytes that this had; or answers it, where that takes more than a plan."""
Planner = Callable[[Request], Draft]
"""Judges the head of a request. It changes nothing, nor does its draft: both may be asked again."""


def made(planner: Planner) -> Callable[[Request], Any]:
    """The endpoint of what is planned like this."""
    return partial(_made, planner)


async def _made(planner: Planner, request: Request) -> Response:
    draft = planner(request)
    sent, size = await read_object(request, engine_of(request).settings)
    plan = draft(sent, size)
    if isinstance(plan, Response):
        return plan
    watch = Watch(request)
    try:
        making = plan.begin(Caller(patience_s(request), size, watch.gone))
        await making.done
        return plan.answer(making.generation())
    except asyncio.CancelledError:
        if watch.gone.done():
            raise ClientDisconnect from None
        raise
    finally:
        watch.stop()
