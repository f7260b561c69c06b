"""The journey of rows through a plugin, without a service: prepare, step until done, render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from ..media import Media
from ..model import Arrays
from ..plugin import Done, Part, Plugin
from ..request import Request, prepare_row
from .finding import Breach, Broken

__all__ = ["MOST_STEPS", "Finished", "Wish", "finish", "make", "prepared", "rendered", "stepped", "unmapped"]

MOST_STEPS = 10_000
"""Within so many each row must be done."""


class Wish(NamedTuple):
    """One row that is wanted."""

    request: Request
    seed: int


class Finished(NamedTuple):
    """A row that is done."""

    row: Arrays
    steps: int


def make(plugin: Plugin[Any], wishes: Sequence[Wish], media_type: str | None = None) -> list[Media]:
    """All of `wishes` in one batch, in the plugin's default type or in another one."""
    done = finish(plugin, prepared(plugin, wishes))
    return [
        rendered(plugin, one, wish.request, media_type or plugin.types[0])
        for one, wish in zip(done, wishes, strict=True)
    ]


def prepared(plugin: Plugin[Any], wishes: Sequence[Wish]) -> list[Arrays]:
    """A row of input for each of `wishes`."""
    return [prepare_row(plugin, wish.request, wish.seed) for wish in wishes]


def finish(plugin: Plugin[Any], rows: Sequence[Any]) -> list[Finished]:
    """Step all rows until each is done.

    Raises:
        Broken: they do not end, or a step loses some.
    """
    states: dict[int, Any] = dict(enumerate(rows))
    done: dict[int, Finished] = {}
    for step in range(1, MOST_STEPS + 1):
        after = dict(zip(states, stepped(plugin, list(states.values())), strict=True))
        done |= {index: Finished(one.row, step) for index, one in after.items() if isinstance(one, Done)}
        states = {index: one for index, one in after.items() if not isinstance(one, Done)}
        if not states:
            return [done[index] for index in range(len(rows))]
    where = f"{type(plugin).__qualname__}.step()"
    breach = Breach(
        where, f"Done within {MOST_STEPS:,} steps", "none", "return Done(row) at the end of each row"
    )
    raise Broken("steps-end", breach)


def stepped(plugin: Plugin[Any], states: Sequence[Any]) -> Sequence[Any]:
    """What one step makes of `states`.

    Raises:
        Broken: it makes more or fewer.
    """
    after = plugin.step(states)
    if len(after) == len(states):
        return [Part.state_of(one) for one in after]
    breach = Breach(
        f"{type(plugin).__qualname__}.step()",
        f"a state for each of {len(states)} rows",
        str(len(after)),
        "return one for each, in their order",
    )
    raise Broken("row-count", breach)


def unmapped(plugin: Plugin[Any], rows: Sequence[Arrays]) -> Broken | None:
    """What generate() returns for `rows` in place of named arrays, if that is why they cannot be finished."""
    try:
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        made = cast(object, plugin.generate(batch))
    except (Exception, SystemExit):  # another reason
        return None
    if isinstance(made, Mapping):
        return None
    breach = Breach(
        f"{type(plugin).__qualname__}.generate()",
        "a dict of arrays",
        type(made).__name__,
        f"return {{{', '.join(f'{spec.name!r}: ...' for spec in plugin.model.manifest.outputs)}}}",
    )
    return Broken("row-count", breach)


def rendered(plugin: Plugin[Any], done: Finished, request: Request, media_type: str) -> Media:
    """The row as Media.

    Raises:
        Broken: it becomes something else.
    """
    media = cast(object, plugin.render(done.row, request, media_type))
    if isinstance(media, Media):
        return media
    breach = Breach(
        f"{type(plugin).__qualname__}.render()",
        f"Media of the type {media_type}",
        type(media).__name__,
        f"return Media({media_type!r}, body), or what brigantine's encoders return",
    )
    raise Broken("media-type", breach)
