"""Rules about rows: what they are made from, and that their own seed and Params alone decide what they become."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..errors import BrigantineError
from ..model import Arrays, TensorSpec
from ..plugin import Plugin
from ..session import Session
from .finding import Breach, place_of, told
from .fingerprint import fingerprint
from .journey import Wish, finish, make, prepared, stepped
from .rule import Rule
from .subject import Subject

__all__ = ["RULES"]

_SIZES = (2, 3, 5)
_OWN_SEED = "draw all randomness in prepare(), from rng alone, and keep nothing from one row for another"
_APART = "compute each row for itself: nothing over the batch axis, neither in generate() nor in the graph"


def _load(subject: Subject) -> Iterator[Breach]:
    """The model's folder is sound, its graph is what the manifest says, and load() takes it."""
    steps = (
        ("the model", "a folder that can be opened", lambda: subject.model, "make the folder anew"),
        (
            "the model",
            "a graph that is what its manifest says",
            lambda: subject.session,
            "export the model again",
        ),
        (
            f"{subject.said}.load()",
            "a plugin that loads this model",
            subject.plugin,
            "mend load(), or take another model",
        ),
    )
    for where, expected, step, remedy in steps:
        try:
            step()
        except (Exception, SystemExit) as error:
            yield Breach(where, expected, f"{told(error)}{place_of(error, subject.home)}", remedy)
            return


class _Watched(Session):
    """A session that keeps what it is given, and the first time that this is not what its graph takes."""

    fault: tuple[str, str] | None

    @classmethod
    def over(cls, session: Session) -> _Watched:
        """`session`, watched."""
        watched = cls.__new__(cls)
        vars(watched).update(vars(session))
        watched.fault = None
        return watched

    def run(self, arrays: Arrays) -> dict[str, Any]:
        dtypes = self.dtypes
        specs = [
            spec.model_copy(update={"dtype": dtypes.get(spec.name, spec.dtype)})
            for spec in self.model.manifest.inputs
        ]
        self.fault = self.fault or _unlike(specs, arrays)
        return super().run(arrays)


def _inputs(subject: Subject) -> Iterator[Breach]:
    """What reaches the graph has the names and shapes of the manifest's inputs, and the types of the session's."""
    session = _Watched.over(subject.session)
    plugin = subject.kind(subject.model, session)
    wish = Wish(subject.request(), 0)
    row = cast(object, plugin.prepare(wish.request, np.random.Generator(np.random.Philox(0))))
    if not isinstance(row, Mapping):
        yield Breach(f"{subject.said}.prepare()", "named arrays", type(row).__name__, 'return {"z": ...}')
        return
    try:
        finish(plugin, prepared(plugin, [wish]))
    except (Exception, SystemExit):
        if session.fault is None:
            raise
    if session.fault is not None:
        remedy = "make in prepare() what the manifest names, without the batch axis"
        yield Breach(f"{subject.said}.prepare()", *session.fault, remedy)


def _prepare_randomness(subject: Subject) -> Iterator[Breach]:
    """The same seed prepares the same row, and Python's and numpy's global generators are neither used nor changed."""
    plugin, wish = subject.plugin(), Wish(subject.request(), 7)
    where = f"{subject.said}.prepare()"
    states = random.getstate(), np.random.get_state()
    try:
        rows: list[bytes] = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            before = fingerprint((random.getstate(), np.random.get_state()))
            rows.append(fingerprint(prepared(plugin, [wish])))
            if fingerprint((random.getstate(), np.random.get_state())) != before:
                yield Breach(
                    where, "global generators left alone", "a change in random or numpy.random", _OWN_SEED
                )
                return
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    if rows[0] != rows[1]:
        yield Breach(where, "the same row for the same seed", "another one", _OWN_SEED)


def _row_count(subject: Subject) -> Iterator[Breach]:
    """generate() returns as many rows as it is given, and step() a state for each."""
    plugin = subject.plugin()
    one_shot = _is_one_shot(subject)
    for count in (1, 2, 3):
        rows = prepared(plugin, [Wish(subject.request(), seed) for seed in range(count)])
        if not one_shot:
            stepped(plugin, rows)
            continue
        outputs = plugin.generate({name: np.stack([row[name] for row in rows]) for name in rows[0]})
        for name, values in outputs.items():
            if len(values) != count:
                where, remedy = f"{subject.said}.generate()", "return one for each, in their order"
                yield Breach(where, f"{count} rows of {name} for {count}", str(len(values)), remedy)
                return


def _batch_of_many(subject: Subject) -> Iterator[Breach]:
    """A row has the same bytes alone as in a batch of 2, 3 or 5, at any place, whatever the others ask for."""
    plugin, wishes = subject.plugin(), subject.wishes(max(_SIZES))
    alone = [make(plugin, [wish])[0].body for wish in wishes]
    batches = [(size, turn) for size in _SIZES for turn in range(size)]
    for size, turn in subject.patiently(batches):
        places = [(index + turn) % size for index in range(size)]
        try:
            made = make(plugin, [wishes[index] for index in places])
        except BrigantineError as error:
            remedy = "give every row the same arrays, or override step()"
            yield Breach(subject.said, f"a batch of {size} rows that are made alone", told(error), remedy)
            return
        for place, index in enumerate(places):
            if made[place].body != alone[index]:
                got = f"others at place {place + 1} of {size}"
                yield Breach(subject.said, "the same bytes for a row, alone and in a batch", got, _APART)
                return


def _order(subject: Subject) -> Iterator[Breach]:
    """Rows come back in the order in which they were given, whichever that is."""
    plugin, request = subject.plugin(), subject.request()
    wishes = [Wish(request, seed) for seed in range(max(_SIZES))]
    whole = _made(plugin, wishes)
    for order in ([4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        again = _made(plugin, [wishes[index] for index in order])
        if again != [whole[index] for index in order] and sorted(again) == sorted(whole):
            where = f"{subject.said}.step()" if not _is_one_shot(subject) else f"{subject.said}.generate()"
            remedy = "put back in order what you sort or group"
            yield Breach(where, f"rows in the order given, {order}", "the same rows in another order", remedy)
            return


def _seeds(subject: Subject) -> Iterator[Breach]:
    """The same seed makes the same bytes: again, after other requests, and in another instance."""
    one, other = subject.plugin(), subject.plugin()
    wishes = subject.wishes(5)
    states = random.getstate(), np.random.get_state()
    try:
        first = _bodies(one, wishes, 1)
        for words, plugin in (("again in the same instance", one), ("in another instance", other)):
            if _bodies(plugin, wishes, 2) != first:
                yield Breach(subject.said, f"the same bytes for the same seed, {words}", "others", _OWN_SEED)
                return
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _bodies(plugin: Plugin[Any], wishes: Sequence[Wish], world: int) -> list[bytes]:
    """Each wish alone, while the global generators are those of another `world`."""
    random.seed(world)
    np.random.seed(world)
    return [make(plugin, [wish])[0].body for wish in wishes]


def _is_one_shot(subject: Subject) -> bool:
    """Whether it leaves step() as it is, which calls generate()."""
    return subject.kind.step is Plugin[Any].step


def _made(plugin: Plugin[Any], wishes: Sequence[Wish]) -> list[bytes]:
    return [media.body for media in make(plugin, wishes)]


def _unlike(specs: Sequence[TensorSpec], arrays: Arrays) -> tuple[str, str] | None:
    """What was expected and what came, when `arrays` [N, ...] are not what `specs` say."""
    if {spec.name for spec in specs} != set(arrays):
        return f"the inputs {', '.join(spec.name for spec in specs)}", ", ".join(arrays) or "none"
    for spec in specs:
        array = np.asarray(arrays[spec.name])
        fits = len(spec.shape) == array.ndim and all(
            isinstance(size, str) or size == there
            for size, there in zip(spec.shape, array.shape, strict=True)
        )
        if array.dtype != spec.dtype or not fits:
            return _tensor(spec.name, spec.dtype, spec.shape[1:]), _tensor(
                spec.name, array.dtype, array.shape[1:]
            )
    return None


def _tensor(name: str, dtype: object, shape: Sequence[object]) -> str:
    return f"{name} as {dtype} [{', '.join(map(str, shape))}]"


RULES = (
    Rule("load", "class", _load),
    Rule("inputs", "load", _inputs),
    Rule("prepare-randomness", "load", _prepare_randomness),
    Rule("row-count", "load", _row_count),
    Rule("batch-of-many", "steady", _batch_of_many),
    Rule("order", "settled", _order),
    Rule("seeds", "row", _seeds),
)
