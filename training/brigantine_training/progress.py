"""What a run says while it trains: a live bar on a terminal, plain lines elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .run import LogLine
from .schedule import format_seconds


class TrainingProgress:
    """Shows the share of the budget, the time left, losses and speed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f}%  left {task.fields[left]}  {task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=1.0, left="?", figures="")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, progress: float, seconds: float) -> None:
        """Move the bar. progress: 0..1 of the budget; seconds: used so far, resumed parts included."""
        self._bar.update(self._task, completed=progress, left=_left(progress, seconds))

    def log(self, line: LogLine) -> None:
        """Show the figures of a log line."""
        figures = f"step {line.step}  {line.words}"
        left = _left(line.progress, line.seconds)
        self._bar.update(self._task, completed=line.progress, left=left, figures=figures)
        if not self._console.is_terminal:
            self._console.print(
                f"{line.progress:6.1%}  left {left}  {figures}", soft_wrap=True, highlight=False
            )


def _left(progress: float, seconds: float) -> str:
    """Time left if the rest of the budget is spent as fast as what is gone."""
    return format_seconds(seconds / progress - seconds) if progress > 0 else "?"
