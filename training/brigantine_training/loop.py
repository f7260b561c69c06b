"""Training from start or checkpoint to the end of the budget, saving, logging and drawing on the way."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType

from .config import Config
from .data import Data
from .family import Trainer
from .progress import TrainingProgress
from .run import LogLine, RunFolder, RunRecord, commit, versions
from .runtime import Runtime
from .schedule import Budget


class StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the step; a second one acts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    def __call__(self) -> bool:
        return self.received is not None


class Clock:
    """Seconds of training, those of the earlier parts of a resumed run included."""

    def __init__(self, already_seconds: float) -> None:
        self._start = time.monotonic() - already_seconds

    def seconds(self) -> float:
        return time.monotonic() - self._start


class Interval:
    """True once whenever so many seconds have gone by."""

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._last = now

    def due(self, now: float) -> bool:
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


@dataclass(frozen=True)
class Origin:
    """What goes into the record of a run beside its progress."""

    config: Config
    dataset: Data
    runtime: Runtime
    command: str
    earlier: RunRecord | None = None
    """What a resumed run goes on from."""
    commit: str = field(default_factory=commit)
    """Asked once, at the start: what HEAD is when the run ends is not what trained it."""


class Loop:
    """One run: a trainer, a clock, a folder and somebody who looks on."""

    def __init__(
        self,
        trainer: Trainer,
        origin: Origin,
        folder: RunFolder,
        shown: TrainingProgress,
        checkpoint: dict | None,
    ) -> None:
        self._trainer = trainer
        self._origin = origin
        self._folder = folder
        self._shown = shown
        if checkpoint is not None:
            self._trainer.load_state_dict(checkpoint["trainer"])
        self._clock = Clock(0.0 if checkpoint is None else checkpoint["seconds"])
        self._budget = Budget(origin.config.budget_seconds, origin.config.budget_steps)
        self._logged_at = self._clock.seconds()
        self._logged_step = self._trainer.steps

    def train(self, stop: Callable[[], bool]) -> bool:
        """Take steps until the budget is spent (True) or `stop` says so (False); saved in either case.

        Raises:
            DivergedError: the losses are no longer finite; the last checkpoint stays.
        """
        config, clock, trainer = self._origin.config, self._clock, self._trainer
        now = clock.seconds()
        log, sample, save = (
            Interval(seconds, now)
            for seconds in (
                config.log_every_seconds,
                config.sample_every_seconds,
                config.checkpoint_every_seconds,
            )
        )
        while (progress := self._budget.progress(now, trainer.steps)) < 1 and not stop():
            trainer.step(progress)
            now = clock.seconds()
            self._shown.advance(progress, now)
            if log.due(now):
                self._log()
            if sample.due(now):
                self._draw()
            if save.due(now):
                self._save()
        self._draw()
        self._save()
        return progress >= 1

    def _log(self) -> None:
        """Also the watchdog: nothing is drawn or saved before the losses that led there were looked at."""
        if self._trainer.steps == self._logged_step:
            return
        now = self._clock.seconds()
        figures = self._trainer.take_figures(now - self._logged_at)
        line = LogLine(
            step=self._trainer.steps,
            seconds=round(now, 3),
            progress=self._budget.progress(now, self._trainer.steps),
            figures=figures.values,
            words=figures.words,
        )
        self._logged_at, self._logged_step = now, self._trainer.steps
        self._folder.write_log(line)
        self._shown.log(line)

    def _draw(self) -> None:
        self._log()
        self._folder.write_samples(self._trainer.draw_samples(), self._trainer.steps)

    def _save(self) -> None:
        self._log()
        self._trainer.check_finite()  # the last update came after the losses that were looked at
        seconds = self._clock.seconds()
        state = {
            "trainer": self._trainer.state_dict(),
            "seconds": seconds,
            **self._trainer.shape(),
        }
        self._folder.write_checkpoint(state, self._record(seconds))

    def _record(self, seconds: float) -> RunRecord:
        origin, trainer = self._origin, self._trainer
        command, device = origin.command, origin.runtime.name
        if origin.earlier:
            command = f"{origin.earlier.command}\n{command}"
            before = origin.earlier.device
            device = before if before.endswith(device) else f"{before}, then {device}"
        return RunRecord(
            command=command,
            seconds=round(seconds, 1),
            steps=trainer.steps,
            commit=origin.commit,
            versions=versions(),
            seed=origin.config.seed,
            device=device,
            precision=str(origin.runtime.dtype).removeprefix("torch."),
            threads=origin.runtime.threads,
            dataset=origin.dataset.name,
            dataset_sha256=origin.dataset.sha256,
            counts=trainer.counts(),
        )
