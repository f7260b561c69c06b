"""A rule: what every plugin keeps to, and how that is tried."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .finding import Breach, Broken, Finding, place_of, told
from .subject import Need, Subject

__all__ = ["Rule"]


class Rule(NamedTuple):
    """One rule. Its check yields a breach for each place that breaks it."""

    name: str
    """A slug that stays."""
    needs: Need
    check: Callable[[Subject], Iterable[Breach]]

    @property
    def says(self) -> str:
        """The rule in words."""
        return inspect.getdoc(self.check) or ""

    def findings(self, subject: Subject) -> list[Finding]:
        """What the check finds, what it finds of another rule on its way, and what it raises."""
        found: list[Finding] = []
        try:
            for breach in self.check(subject):
                found.append(Finding(self.name, *breach))
        except Broken as broken:
            found.append(broken.finding)
        except (Exception, SystemExit) as error:
            if self.needs == "load" and self.name != "defaults" and not subject.ready("row"):
                return found  # what stops every row, the rule `defaults` says
            got = f"{told(error)}{place_of(error, subject.home)}"
            remedy = "mend what raises it; for what a request may not ask, raise BadParams in prepare()"
            found.append(Finding(self.name, subject.said, "no exception", got, remedy))
        return found
