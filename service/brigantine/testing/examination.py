"""An examination: all rules, tried on one plugin with one model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..model import Model
from . import asking, finished, interpreter, memory, rows, steps
from .finding import Finding
from .rule import Rule
from .subject import Subject

__all__ = ["CONTRACT", "RULES", "TRIED", "assert_plugin", "examine", "findings_of"]

CONTRACT = (
    "subclass",
    "name",
    "content",
    "plural",
    "types",
    "isolation",
    "method",
    "params",
    "field",
    "bounds",
    "default",
)
"""The rules that a class alone shows to be broken; see `brigantine.contract`."""

TRIED: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        *asking.RULES,
        *rows.RULES,
        *steps.RULES,
        *finished.RULES,
        *memory.RULES,
        *interpreter.RULES,
    )
}
"""The rules that show when a plugin is tried."""

RULES = tuple(dict.fromkeys((*CONTRACT, *TRIED)))
"""The names of all rules. `bounds` are to be there, and to be kept."""


def examine(
    plugin_class: object,
    model: Model | Path | str,
    *,
    name: str | None = None,
    calls: int = 1000,
    patience_s: float = 20.0,
    only: Iterable[str] | None = None,
) -> list[Finding]:
    """Hold a plugin against all rules; an empty list when it keeps them.

    What one rule takes for granted and another one finds missing is said once: a plugin that does not load has the
    finding `load`, and not one of each rule that needs it loaded.

    Args:
        plugin_class: the class, or what should be one.
        model: a model that it serves; a folder, or one that is open.
        name: what it is offered as, the name of its entry point say; None for its own.
        calls: how many the memory is watched over.
        patience_s: how long one rule goes on trying.
        only: the names of the rules to try; None for all.

    Raises:
        ValueError: there is no such rule.
    """
    wanted = list(RULES if only is None else only)
    if unknown := sorted(set(wanted) - set(RULES)):
        raise ValueError(f"rules: expected some of {', '.join(RULES)}, got {', '.join(unknown)}")
    subject = Subject(plugin_class, model, name, calls, patience_s)
    whole = subject.violations if only is None else []
    return list(
        dict.fromkeys([*whole, *(one for rule in wanted for one in findings_of(subject, rule) or ())])
    )


def findings_of(subject: Subject, name: str) -> list[Finding] | None:
    """What breaks the rule of this name; None when it cannot be tried, for what another rule says."""
    broken = [one for one in subject.violations if one.rule == name]
    rule = TRIED.get(name)
    if rule is None or broken:
        return broken
    return rule.findings(subject) if subject.ready(rule.needs) else None


def assert_plugin(
    plugin_class: object,
    model: Model | Path | str,
    *,
    name: str | None = None,
    calls: int = 1000,
    patience_s: float = 20.0,
) -> None:
    """`examine`, as an assertion.

    Raises:
        AssertionError: the plugin breaks rules; lists every finding.
    """
    if found := examine(plugin_class, model, name=name, calls=calls, patience_s=patience_s):
        lines = [f"{one.rule}: {one}" for one in found]
        raise AssertionError("\n".join([f"{len(found)} findings", *lines]))
