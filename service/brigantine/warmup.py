"""The warm-up: a model's first rows, which show what its plugin's class does not.

It runs where the model will run: in the worker, or in a process of the model's own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from .errors import PluginInvalid
from .media import Media
from .model import Arrays
from .plugin import Done, Part, Plugin
from .request import prepare_row, request_type

__all__ = ["Facts", "warm_up"]

_PATIENCE_S, _STEPS_PATIENCE_S = 1.0, 10.0
"""How long a model is tried with larger and larger batches, at once or in steps."""
_FEW = 4
"""Rows that are made alone, too, where each takes many steps."""
_MOST_STEPS = 100_000


class Facts(NamedTuple):
    """What the warm-up has shown."""

    device: str
    """Where the graph runs: `tensorrt`, `cuda` or `cpu`."""
    fell_back: bool
    """Whether a GPU was there to be had, and the CPU runs."""
    invariant: bool
    """Whether a row had the same bits alone and in every batch that was tried."""
    tried_batch: int
    """The largest batch that was tried, in rows."""
    repeats: bool = True
    """Whether the same batch gave the same bits again; without that a row's company is no matter."""

    @property
    def max_batch(self) -> int:
        """The most rows in a batch. A row that its company sways has the same bits in any only when it has none."""
        return self.tried_batch if self.invariant else 1


def warm_up(plugin: Plugin[Any], max_batch: int) -> Facts:
    """Two rows of default Params through the whole journey, in every media type, and then larger and larger batches.

    Args:
        plugin: with its model loaded.
        max_batch: the most rows to try; the model's own limit counts too.

    Raises:
        PluginInvalid: it breaks the contract.
        Exception: whatever it raises.
    """
    _render(plugin)
    session = plugin.session
    repeats = session.repeats and _repeats(plugin)
    invariant, tried = _invariant(plugin, min(max_batch, plugin.model.manifest.max_batch), repeats)
    session.forget()
    return Facts(session.device, session.fell_back, invariant, tried, repeats)


def _render(plugin: Plugin[Any]) -> None:
    params = request_type(plugin.params, "WarmUp", max_n=2)()
    finished, _ = _finish(plugin, [prepare_row(plugin, params, seed) for seed in (0, 1)])
    for media_type in plugin.types:
        media = cast(object, plugin.render(finished, params, media_type))
        if not isinstance(media, Media) or media.type.partition(";")[0] != media_type:
            got = media.type if isinstance(media, Media) else repr(media)[:80]
            raise PluginInvalid(
                f"{plugin.name}.render(): expected Media of the type asked for, {media_type}, got {got}; return "
                "Media(media_type, body)"
            )


def _finish(plugin: Plugin[Any], rows: Sequence[Arrays]) -> list[Arrays]:
    """Step all rows, prepared, until each is done."""
    states: dict[int, Any] = dict(enumerate(rows))
    done: dict[int, Arrays] = {}
    for _ in range(_MOST_STEPS):
        if not states:
            return [done[index] for index in range(len(rows))]
        stepped = plugin.step(list(states.values()))
        if len(stepped) != len(states):
            raise PluginInvalid(
                f"{plugin.name}.step(): expected a state for each of {len(states)} rows, got {len(stepped)}; return "
                "one for each, in their order"
            )
        after = dict(zip(states, map(Part.state_of, stepped), strict=True))
        done |= {index: state.row for index, state in after.items() if isinstance(state, Done)}
        states = {index: state for index, state in after.items() if not isinstance(state, Done)}
    raise PluginInvalid(
        f"{plugin.name}.step(): expected Done within {_MOST_STEPS} steps, got none; return Done(row) at the end"
    )


def _repeats(plugin: Plugin[Any]) -> bool:
    """Whether the same row has the same bits again."""
    row = prepare_row(plugin, request_type(plugin.params, "WarmUp", max_n=1)(), 0)
    return _same(*(_finish(plugin, [row])[0] for _ in range(2)))


def _invariant(plugin: Plugin[Any], max_batch: int, repeats: bool) -> tuple[bool, int]:
    """Whether a row's bits are the same alone and in a batch, and the largest batch that was tried.

    Batches of 1, 2, 4 ... and the largest are tried, until its time has passed.
    """
    patience_s = _STEPS_PATIENCE_S if plugin.takes_steps else _PATIENCE_S
    params = request_type(plugin.params, "WarmUp", max_n=1)()
    alone: list[Arrays] = []
    tried, begin = 0, time.perf_counter()
    for size in [*(1 << power for power in range((max_batch - 1).bit_length())), max_batch]:
        if tried >= 2 and time.perf_counter() - begin > patience_s:
            break
        rows = [prepare_row(plugin, params, seed) for seed in range(size)]
        few = rows[:_FEW] if plugin.takes_steps else rows
        alone += [_finish(plugin, [row])[0] for row in few[len(alone) :]]
        tried = size
        made = _finish(plugin, rows)
        if repeats and not all(map(_same, made, alone)):  # of as many as there are alone
            return False, tried
    return True, tried


def _same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)
