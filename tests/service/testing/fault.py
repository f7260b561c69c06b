"""A fault: a plugin that breaks a rule, and what the kit must find of it."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["FAULTS", "Fault", "breaks"]


class Fault(NamedTuple):
    rule: str
    plugin: Any
    also: frozenset[str] = frozenset()
    """Other rules that the same fault breaks."""
    says: str = ""
    """What the finding must say."""


FAULTS: list[Fault] = []


def breaks(rule: str, *also: str, says: str = "") -> Any:
    """A decorator: the plugin breaks this rule, and those that cannot but break with it."""

    def keep(plugin: Any) -> Any:
        FAULTS.append(Fault(rule, plugin, frozenset(also), says))
        return plugin

    return keep
