"""Rules about what is finished: the Media, what is said beside them, and what they are counted under."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import orjson

from ..errors import BrigantineError
from ..media import Media
from .finding import Breach, Broken, place_of, told
from .journey import make
from .magic import mismatch
from .rule import Rule
from .subject import Subject

__all__ = ["RULES"]

_HOST = frozenset({"b64_json", "seed", "type"})
"""What the host itself says beside a medium."""
_MOST_INFO_BYTES = 4096


class _Made(NamedTuple):
    where: str
    asked: str
    media: Media


def _made(subject: Subject) -> Iterator[_Made]:
    """Every Media that the trials gave, with the type that was asked for."""
    for trial in subject.trials:
        body = ", ".join(f"{name}={value!r}"[:40] for name, value in trial.body.items())
        for asked, outcome in trial.outcomes.items():
            if isinstance(outcome, Media):
                yield _Made(
                    f"{subject.said}.render() for {asked}" + (f" of {body}" if body else ""), asked, outcome
                )


def _media_type(subject: Subject) -> Iterator[Breach]:
    """render() gives each of `types` when it is asked for it."""
    for asked, outcome in subject.trials[0].outcomes.items():
        if isinstance(outcome, Broken):
            raise outcome
        if isinstance(outcome, Exception) and asked != subject.kind.types[0]:
            remedy = "render each of types, or take it out there"
            got = f"{told(outcome)}{place_of(outcome, subject.home)}"
            yield Breach(f"{subject.said}.render()", f"Media of the type {asked}", got, remedy)
    for where, asked, media in _made(subject):
        if str(media.type).partition(";")[0] != asked:
            yield Breach(
                where, f"Media of the type {asked}", str(media.type), "give Media the type that was asked for"
            )
            return


def _media_bytes(subject: Subject) -> Iterator[Breach]:
    """The body is bytes, and they are of the type that the Media says."""
    for where, _, media in _made(subject):
        body = cast(object, media.body)
        if not isinstance(body, bytes):
            yield Breach(
                where, "a body of bytes", type(body).__name__, "give Media bytes; text is encoded in UTF-8"
            )
            return
        if words := mismatch(media.type, body):
            remedy = "encode what the type says, or say what you encode"
            yield Breach(where, f"{media.type} to be {words}", f"{body[:12]!r}...", remedy)
            return


def _info(subject: Subject) -> Iterator[Breach]:
    """info is small, JSON can express it, and it has none of the host's own names."""
    for where, _, media in _made(subject):
        fault = _info_fault(media.info)
        if fault is not None:
            yield Breach(f"{where}, info", *fault)
            return


def _info_fault(info: object) -> tuple[str, str, str] | None:
    try:
        size = len(orjson.dumps(info))
    except TypeError as error:
        return "what JSON can express", str(error), "turn numpy's numbers into int() and float()"
    if not isinstance(info, dict):
        return "names with values", type(info).__name__, 'say info={"label": ...}'
    if size > _MOST_INFO_BYTES:
        return (
            f"at most {_MOST_INFO_BYTES} bytes of JSON",
            str(size),
            "keep it to small facts; what is large is a medium",
        )
    if taken := sorted(_HOST & cast("dict[str, Any]", info).keys()):
        return "names of its own", ", ".join(taken), f"rename it: {', '.join(sorted(_HOST))} are the host's"
    return None


def _picklable(subject: Subject) -> Iterator[Breach]:
    """Media, and the errors that a request may meet, can be sent to another process."""
    for trial in subject.trials:
        for outcome in trial.outcomes.values():
            if not isinstance(outcome, Media | BrigantineError):
                continue
            what = "Media" if isinstance(outcome, Media) else type(outcome).__qualname__
            if got := _changed(outcome):
                remedy = "give it plain values; an exception with more arguments needs a __reduce__"
                yield Breach(subject.said, f"{what} that can be sent to another process", got, remedy)
                return


def _changed(outcome: Media | BrigantineError) -> str:
    """What becomes of it on the way, when it does not stay the same."""
    try:
        there = pickle.loads(pickle.dumps(outcome))
    except Exception as error:
        return told(error)
    same = there == outcome if isinstance(outcome, Media) else str(there) == str(outcome)
    return "" if type(there) is type(outcome) and same else "another one"


def _metric_labels(subject: Subject) -> Iterator[Breach]:
    """`name`, `content` and `plural`, which metrics and routes are named by, are the class's and stay."""
    plugin = subject.plugin()
    for wish in subject.wishes(5):
        make(plugin, [wish])
    for label, before in subject.labels.items():
        for one in (plugin, subject.kind):
            if (after := getattr(one, label, None)) != before:
                remedy = "a value of its own for each model or request has no bound; put it into Media's info"
                yield Breach(f"{subject.said}.{label}", f"{before!r} for ever", repr(after), remedy)
                break


RULES = (
    Rule("media-type", "load", _media_type),
    Rule("media-bytes", "row", _media_bytes),
    Rule("info", "row", _info),
    Rule("picklable", "row", _picklable),
    Rule("metric-labels", "row", _metric_labels),
)
