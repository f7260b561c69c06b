"""The report: scores as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from brigantine.model import Score
from rich.console import Console
from rich.table import Table

from .measures import MEASURES, Measure

__all__ = ["print_report"]


def print_report(
    title: str, scores: Mapping[str, Score], console: Console, measures: Mapping[str, Measure] = MEASURES
) -> None:
    """Print each score with its 95% interval, what unseen real data scores, and how much one draw holds."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("score", no_wrap=True)
    table.add_column("better")
    for column in ("value", "95% interval", "real data", "samples"):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        table.add_row(name, measures[name].better, *cells(score))
    console.print(table)


def cells(score: Score) -> tuple[str, str, str, str]:
    """Value, interval, floor and size of a score, as text."""
    floor = "-" if score.floor is None else f"{score.floor:.3f}"
    return f"{score.value:.3f}", f"{score.low:.3f} - {score.high:.3f}", floor, f"{score.samples:,}"
