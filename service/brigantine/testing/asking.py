"""Rules about what a request may ask for: the Params."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ..errors import BadParams, BrigantineError
from ..request import parse
from .finding import Breach, Broken, place_of, told
from .fingerprint import fingerprint
from .journey import Wish, make
from .rule import Rule
from .subject import Subject, Trial
from .values import outside, within, wrong

__all__ = ["RULES"]

_UNKNOWN = "no_such_field"
_SHOWN = 60


def _schema_round_trip(subject: Subject) -> Iterator[Breach]:
    """The schema is JSON, and Params stay the same through it."""
    where = subject.params.__qualname__
    orjson.dumps(subject.params.model_json_schema())
    for body in [{}, *({name: value} for name, value in _extremes(subject))]:
        try:
            before = subject.params.model_validate(body)
        except ValueError:
            continue  # refused, which other rules judge
        text = before.model_dump_json(by_alias=True)
        try:
            after = subject.params.model_validate_json(text)
        except ValueError as error:
            yield Breach(
                where,
                f"its own JSON {_shown(text)} to be valid",
                told(error),
                "let a type take what it gives",
            )
            continue
        if before != after:
            yield Breach(
                where,
                f"{_shown(before)} again, from its JSON",
                _shown(after),
                "let validators change it once only",
            )


def _bounds(subject: Subject) -> Iterator[Breach]:
    """A value just outside each bound that the schema states is refused with a 422 that names the field."""
    for name, schema in subject.fields.items():
        for value, bound in outside(schema):
            if got := _unrefused(subject, name, value):
                expected = f"422 that names {name} for {_shown(value)} ({bound})"
                remedy = (
                    "let Field(ge=..., le=...), max_length=... or a Literal say so, and no validator undo it"
                )
                yield Breach(f"{subject.params.__qualname__}.{name}", expected, got, remedy)


def _bad_input(subject: Subject) -> Iterator[Breach]:
    """A value of a wrong type, and a field that is unknown, are refused with a 422 that names the field."""
    for name, schema in subject.fields.items():
        for value in wrong(schema):
            if got := _unrefused(subject, name, value):
                remedy = "let its type refuse it; a validator that refuses raises ValueError"
                where = f"{subject.params.__qualname__}.{name}"
                yield Breach(where, f"422 that names {name} for {_shown(value)}", got, remedy)
    if got := _unrefused(subject, _UNKNOWN, 1):
        remedy = 'leave extra="forbid" of brigantine.Params as it is'
        yield Breach(subject.params.__qualname__, "422 that names a field which is unknown", got, remedy)


def _defaults(subject: Subject) -> Iterator[Breach]:
    """An empty body is made, and one that spells out every default becomes the same bytes."""
    outcome = subject.trials[0].outcomes[subject.kind.types[0]]
    if isinstance(outcome, Broken):
        raise outcome
    if isinstance(outcome, Exception):
        remedy = _remedy(outcome, subject, subject.trials[0])
        yield Breach(subject.said, "Media for an empty body", _came(subject, outcome), remedy)
        return
    if not subject.ready("steady"):
        return
    spelt = subject.request().model_dump(mode="json", by_alias=True)
    plugin = subject.plugin()
    try:
        both = [make(plugin, [Wish(parse(subject.request, body), 0)])[0] for body in ({}, spelt)]
    except BadParams as error:
        yield Breach(
            subject.params.__qualname__,
            f"Media for a body with every default, {_shown(spelt)}",
            told(error),
            "take a default for a field that is absent: forms send every field",
        )
        return
    if both[0].body != both[1].body:
        expected = "the same bytes for an empty body and for one with every default"
        remedy = "look at values, not at which fields were set"
        yield Breach(subject.params.__qualname__, expected, "others", remedy)


def _extremes_made(subject: Subject) -> Iterator[Breach]:
    """Each field at its smallest and at its largest is made or refused with BadParams, in every media type."""
    for trial in subject.trials[1:]:
        outcome = _bad_outcome(subject, trial)
        if outcome is None:
            continue
        where = ", ".join(f"{subject.params.__qualname__}.{name}" for name in trial.body)
        remedy = "narrow its bounds, or raise BadParams in prepare()"
        yield Breach(where, f"Media or BadParams for {_shown(trial.body)}", outcome, remedy)


def _params_kept(subject: Subject) -> Iterator[Breach]:
    """Making a row changes nothing in its Params, which all rows of a request share."""
    plugin = subject.plugin()
    for wish in subject.wishes(5):
        before = fingerprint(wish.request.model_dump())
        make(plugin, [wish])
        if fingerprint(wish.request.model_dump()) != before:
            remedy = "copy a list or a dict before you change it"
            yield Breach(subject.said, "the Params as they were, after a row", "changed ones", remedy)
            return


def _extremes(subject: Subject) -> Iterable[tuple[str, Any]]:
    return [(name, value) for name, schema in subject.fields.items() for value in within(schema)]


def _unrefused(subject: Subject, field: str, value: object) -> str:
    """What came instead of a 422 that names the field; empty when that came."""
    try:
        parse(subject.request, {field: value})
    except BadParams as error:
        names = [one.field for one in error.errors]
        return "" if field in names else f"422 that names {', '.join(names)}"
    except Exception as error:
        return f"500, {_came(subject, error)}"
    return "a request"


def _bad_outcome(subject: Subject, trial: Trial) -> str | None:
    """The first thing that the trial became which is neither Media nor an error of the client's."""
    for outcome in trial.outcomes.values():
        if isinstance(outcome, Broken):
            raise outcome
        refused = isinstance(outcome, BrigantineError) and outcome.status < 500
        if isinstance(outcome, Exception) and not refused:
            return _came(subject, outcome)
    return None


def _remedy(error: Exception, subject: Subject, trial: Trial) -> str:
    """What to do about an error that a request by default has met."""
    if isinstance(error, BadParams):
        return "let the defaults be a request that every model can make"
    line = place_of(error, subject.home).strip(" ()")
    if not line:  # of the host, or of what runs the graph
        return "let prepare() make what the graph takes; the rule inputs says what that is"
    cause = error
    while isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    known = f"; the row has {', '.join(trial.names)}" if isinstance(cause, KeyError) and trial.names else ""
    return f"mend {line}{known}"


def _came(subject: Subject, error: Exception) -> str:
    return f"{told(error)}{place_of(error, subject.home)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


RULES = (
    Rule("schema-round-trip", "class", _schema_round_trip),
    Rule("bounds", "class", _bounds),
    Rule("bad-input", "class", _bad_input),
    Rule("defaults", "load", _defaults),
    Rule("extremes", "row", _extremes_made),
    Rule("params-kept", "row", _params_kept),
)
