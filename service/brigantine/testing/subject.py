"""A subject: the plugin that is examined, with its model, and what became of the requests that were tried on it."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from ..contract import violations
from ..errors import BadParams
from ..media import Media
from ..model import Arrays, Model
from ..plugin import Params, Plugin
from ..request import Request, parse, request_type
from ..session import Session
from .finding import Finding, told
from .journey import Wish, finish, make, prepared, rendered, unmapped
from .schema import Schema, schemas_of
from .values import within

__all__ = ["SEED", "Need", "Subject", "Trial"]

Need = Literal["class", "load", "row", "steady", "batch", "settled"]
"""What a rule takes for granted of the plugin: a class that can be tried, that it loads, makes a default row, makes
rows again alike, makes several rows at once, and both of these."""

T = TypeVar("T")
SEED = 1234
"""Of each trial."""
_FIRST = frozenset({"default", "method", "params", "schema-round-trip", "subclass", "types"})
"""Rules of the class without which nothing can be tried."""
_MAX_N = 4
_VARIANTS = 4
"""Bodies beside the empty one in a mixed batch."""
_SLOW = 0.05
"""The part of the patience that a row may take which is made again and again."""


class Trial(NamedTuple):
    """One body, alone, with the seed `SEED`."""

    body: Mapping[str, Any]
    outcomes: Mapping[str, Media | Exception]
    """What became of it, by media type; of one that was not to be made at all, by the default type only."""
    steps: int = 0
    seconds: float = 0.0
    request: Request | None = None
    """None when it was refused."""
    names: tuple[str, ...] = ()
    """What is in its row, as far as it came."""


class Subject:
    """A plugin under examination.

    Args:
        plugin: what should be its class.
        model: its folder, or one that is open.
        name: what it is offered as; its own name if this is None.
        calls: how many the memory is watched over.
        patience_s: how long one rule goes on trying.
    """

    def __init__(
        self, plugin: object, model: Model | Path | str, name: str | None, calls: int, patience_s: float
    ) -> None:
        self._offered = plugin
        self._place = model
        self.name = str(getattr(plugin, "name", self.said)) if name is None else name
        self.calls = calls
        self.patience_s = patience_s
        self.labels = {label: getattr(plugin, label, None) for label in ("name", "content", "plural")}
        """What metrics and routes are named by, before any instance was made."""

    @property
    def kind(self) -> type[Plugin[Any]]:
        """Its class; what else it may be, the rule `subclass` says."""
        return cast("type[Plugin[Any]]", self._offered)

    @property
    def said(self) -> str:
        """Its class's name, as findings have it."""
        return str(getattr(self._offered, "__qualname__", repr(self._offered)))

    @property
    def params(self) -> type[Params]:
        return self.kind.params

    @cached_property
    def file(self) -> str | None:
        """Where its class is written."""
        try:
            return inspect.getsourcefile(self.kind)
        except (OSError, TypeError):
            return None

    @property
    def home(self) -> Path | None:
        """The file, for `place_of`."""
        return Path(self.file) if self.file else None

    @cached_property
    def violations(self) -> list[Finding]:
        """What its class alone shows."""
        try:
            found = violations(self._offered, self.name)
        except Exception as error:
            remedy = "let each field have a type that JSON has"
            return [
                Finding("schema-round-trip", self.said, "Params that JSON can express", told(error), remedy)
            ]
        if self._fault and not any(one.rule in (*_FIRST, "field") for one in found):
            remedy = "let an empty body be a request"
            found.append(
                Finding("default", self.params.__qualname__, "Params by default", self._fault, remedy)
            )
        return found

    def ready(self, need: Need) -> bool:
        """Whether it has what a rule takes for granted. What it lacks, other rules say."""
        if need == "class":
            return self._is_whole
        if need == "load":
            return self.ready("class") and self._loads
        if need == "row":
            return self.ready("load") and self._makes_a_row
        if need == "settled":
            return self.ready("steady") and self.ready("batch")
        return self.ready("row") and (self._is_steady if need == "steady" else self._is_joinable)

    @cached_property
    def model(self) -> Model:
        return self._place if isinstance(self._place, Model) else Model.open(Path(self._place))

    @cached_property
    def session(self) -> Session:
        return Session.open(self.model)

    @cached_property
    def request(self) -> type[Request]:
        """What a body becomes."""
        return request_type(self.params, "Examined", _MAX_N)

    @cached_property
    def fields(self) -> dict[str, Schema]:
        """What the schema says of each field of its Params."""
        return schemas_of(self.params)

    def plugin(self) -> Plugin[Any]:
        """A new instance, with the model loaded."""
        return self.kind(self.model, self.session)

    def patiently(self, items: Iterable[T]) -> Iterator[T]:
        """The items, as long as patience lasts; at least one."""
        begin = time.perf_counter()
        for item in items:
            yield item
            if time.perf_counter() - begin > self.patience_s:
                return

    @cached_property
    def trials(self) -> list[Trial]:
        """An empty body, and one for each extreme of each field. One that is refused alone is tried with another."""
        extremes = [{name: value} for name, schema in self.fields.items() for value in within(schema)]
        ends = [
            {name: values[place] for name, schema in self.fields.items() if (values := within(schema))}
            for place in (0, -1)
        ]
        plugin = self.plugin()
        others = (self._accepted(plugin, body, extremes) for body in (*extremes, *ends))
        return [self._try(plugin, body) for body in self.patiently(itertools.chain([{}], others))]

    def wishes(self, count: int, first: int = 0) -> list[Wish]:
        """So many rows for requests that differ, from seed `first` on."""
        requests = itertools.cycle(self._makeable)
        return [Wish(next(requests), seed) for seed in range(first, first + count)]

    def longest(self) -> tuple[Request, int]:
        """The request that takes the most steps, of those that can be made again and again, and how many."""
        trial = max(self._quick, key=lambda one: one.steps)
        return cast("Request", trial.request), trial.steps

    @property
    def _is_whole(self) -> bool:
        return not self._fault and not any(one.rule in _FIRST for one in self.violations)

    @cached_property
    def _fault(self) -> str:
        """Why its class and the host's fields make no request, if they do not."""
        try:
            self.request()
        except Exception as error:
            return told(error)
        return ""

    @cached_property
    def _loads(self) -> bool:
        try:
            self.plugin()
        except (Exception, SystemExit):
            return False
        return True

    @cached_property
    def _makes_a_row(self) -> bool:
        try:
            return isinstance(self.trials[0].outcomes[self.kind.types[0]], Media)
        except Exception:
            return False

    @cached_property
    def _is_steady(self) -> bool:
        """Whether rows, each alone, are the same when they are made again."""
        plugin, wishes = self.plugin(), self.wishes(_VARIANTS + 1)
        try:
            first, again = ([make(plugin, [wish])[0].body for wish in wishes] for _ in range(2))
        except (Exception, SystemExit):
            return False
        return first == again

    @cached_property
    def _is_joinable(self) -> bool:
        """Whether rows of several requests can be made at once at all."""
        try:
            make(self.plugin(), self.wishes(_VARIANTS + 1))
        except (Exception, SystemExit):
            return False
        return True

    @property
    def _quick(self) -> list[Trial]:
        """The trials that gave Media of the default type, soon enough; the default one in any case."""
        first, *others = self.trials
        made = [one for one in others if isinstance(one.outcomes[self.kind.types[0]], Media)]
        return [first, *(one for one in made if one.seconds < _SLOW * self.patience_s)]

    @cached_property
    def _makeable(self) -> list[Request]:
        """The default one first, and then what takes the most steps."""
        first, *others = self._quick
        others.sort(key=lambda one: -one.steps)
        return [one.request for one in (first, *others[:_VARIANTS]) if one.request is not None]

    def _accepted(
        self, plugin: Plugin[Any], body: Mapping[str, Any], others: list[dict[str, Any]]
    ) -> Mapping[str, Any]:
        """The body, or, when `prepare` refuses it, the first one with another field beside that it takes."""
        if not self._is_refused(plugin, body):
            return body
        together = ({**other, **body} for other in others if other.keys().isdisjoint(body))
        return next((one for one in together if not self._is_refused(plugin, one)), body)

    def _is_refused(self, plugin: Plugin[Any], body: Mapping[str, Any]) -> bool:
        try:
            prepared(plugin, [Wish(parse(self.request, body), SEED)])
        except BadParams:
            return True
        except (Exception, SystemExit):
            return False
        return False

    def _try(self, plugin: Plugin[Any], body: Mapping[str, Any]) -> Trial:
        begin = time.perf_counter()
        rows: list[Arrays] = []
        try:
            request = parse(self.request, body)
            rows += prepared(plugin, [Wish(request, SEED)])
            [done] = finish(plugin, rows)
        except (Exception, SystemExit) as error:
            fault = unmapped(plugin, rows) or _plain(error)
            return Trial(body, {self.kind.types[0]: fault}, names=tuple(rows[0]) if rows else ())

        def render(media_type: str) -> Media | Exception:
            try:
                return rendered(plugin, done, request, media_type)
            except (Exception, SystemExit) as error:
                return _plain(error)

        outcomes = {media_type: render(media_type) for media_type in self.kind.types}
        return Trial(body, outcomes, done.steps, time.perf_counter() - begin, request, tuple(done.row))


def _plain(error: Exception | SystemExit) -> Exception:
    if isinstance(error, Exception):
        return error
    plain = RuntimeError(f"SystemExit({error.code!r}), which would end the service")
    plain.__cause__ = error
    return plain
