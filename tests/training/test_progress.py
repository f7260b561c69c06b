"""What is said while training."""

import io

from brigantine_training.progress import TrainingProgress
from rich.console import Console

from tests.training.test_run import LINE


def _said(terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with TrainingProgress(console) as shown:
        shown.advance(0.4, seconds=30)
        shown.log(LINE)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_plain_lines_where_there_is_no_terminal():
    assert _said(terminal=False) == " 50.0%  left 1s  step 10  D 0.500  G 0.600  penalty 0.10  80 img/s\n"


def test_a_bar_on_a_terminal():
    said = _said(terminal=True)
    for part in ("training", "50.0%", "left 1s", "D 0.500", "80 img/s"):
        assert part in said
