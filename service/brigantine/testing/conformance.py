"""Conformance: one test for each rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from ..model import Model
from .examination import RULES, findings_of
from .subject import Subject

__all__ = ["conformance"]


def conformance(
    plugin_class: object,
    model: Model | Path | str | Callable[[], Model | Path | str],
    *,
    name: str | None = None,
    calls: int = 1000,
    patience_s: float = 20.0,
) -> Callable[[str], None]:
    """A test function for pytest, parametrized by rule. One line of a test file is enough:

        test_chime = conformance(Chime, "models/chime")

    The arguments are those of `examine`; `model` may also be a function that makes one, called when the tests run.

    Raises:
        ImportError: pytest is not installed.
    """
    try:
        import pytest  # noqa: PLC0415 - serving does not need it
    except ImportError as error:
        raise ImportError("conformance needs pytest: pip install 'brigantine[testing]'") from error

    @cache
    def subject() -> Subject:
        return Subject(plugin_class, model() if callable(model) else model, name, calls, patience_s)

    @pytest.mark.parametrize("rule", RULES)
    def test(rule: str) -> None:
        found = findings_of(subject(), rule)
        if found is None:
            pytest.skip("waits for what another rule finds missing")
        if found:
            pytest.fail("\n".join(f"{one.rule}: {one}" for one in found), pytrace=False)

    return test
