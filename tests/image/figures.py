"""What was measured, for the end of the run: a figure beside its limit, whether it keeps to it or not."""

from __future__ import annotations

from tests.slack import SLACK

FIGURES: list[str] = []


def at_most(what: str, value: float, limit: float, unit: str) -> None:
    """Keep the figure, and fail when it is beyond its limit."""
    limit *= SLACK if unit == "s" else 1
    FIGURES.append(f"{what}: {value:.1f} {unit}, at most {limit:g}")
    assert value <= limit, FIGURES[-1]


def beside(what: str, value: float, unit: str) -> None:
    """Keep a figure that has no limit and explains another."""
    FIGURES.append(f"{what}: {value:.1f} {unit}")
