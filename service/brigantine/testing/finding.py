"""A finding: a rule that a plugin breaks, with what was expected, what came, and the remedy."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

from ..contract import Violation as Finding
from ..discovery import place_of
from ..errors import BrigantineError

__all__ = ["Breach", "Broken", "Finding", "place_of", "told"]

_SHOWN = 300


class Breach(NamedTuple):
    """What a rule says of one place that breaks it; with the rule's name it is a Finding."""

    where: str
    expected: str
    got: str
    remedy: str


class Broken(Exception):
    """A rule that shows to be broken while another one is tried: that one cannot be judged."""

    def __init__(self, rule: str, breach: Breach) -> None:
        super().__init__(str(Finding(rule, *breach)))
        self.finding = Finding(rule, *breach)


def told(error: BaseException) -> str:
    """An exception as a finding shows it: its message, or its type with that."""
    try:
        text = _text(error)
    except Exception:
        text = f"{type(error).__name__}, which cannot say why"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _text(error: BaseException) -> str:
    if isinstance(error, BrigantineError):
        return str(error)
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return f"{type(error).__name__}: {error}"
