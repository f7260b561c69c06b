"""Training from start or checkpoint to the end of the budget, saving, logging and drawing on the way."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType

from .config import Config
from .data import Dataset
from .progress import TrainingProgress
from .run import LogLine, RunFolder, RunRecord, commit, versions
from .runtime import Runtime
from .schedule import Budget, Rates, rates_at
from .trainer import Trainer


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
    dataset: Dataset
    runtime: Runtime
    command: str
    earlier: RunRecord | None = None
    """What a resumed run goes on from."""
    commit: str = field(default_factory=commit)
    """Asked once, at the start: what HEAD is when the run ends is not what trained it."""


class Loop:
    """One run: a trainer, a clock, a folder and somebody who looks on."""

    def __init__(
        self, origin: Origin, folder: RunFolder, shown: TrainingProgress, checkpoint: dict | None
    ) -> None:
        self._origin = origin
        self._folder = folder
        self._shown = shown
        self._trainer = Trainer(origin.config, origin.dataset, origin.runtime)
        if checkpoint is not None:
            self._trainer.load_state_dict(checkpoint["trainer"])
        self._clock = Clock(0.0 if checkpoint is None else checkpoint["seconds"])
        self._budget = Budget(origin.config.budget_seconds, origin.config.budget_steps)
        self._logged_at = self._clock.seconds()
        self._logged_images = self._trainer.images_seen

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
        rates = rates_at(config, self._budget.progress(now, trainer.steps))
        while (progress := self._budget.progress(now, trainer.steps)) < 1 and not stop():
            rates = rates_at(config, progress)
            trainer.step(rates)
            now = clock.seconds()
            self._shown.advance(progress, now)
            if log.due(now):
                self._log(rates)
            if sample.due(now):
                self._draw(rates)
            if save.due(now):
                self._save(rates)
        self._draw(rates)
        self._save(rates)
        return progress >= 1

    def _log(self, rates: Rates) -> None:
        """Also the watchdog: nothing is drawn or saved before the losses that led there were looked at."""
        if self._trainer.images_seen == self._logged_images:
            return
        losses = self._trainer.take_losses()
        now = self._clock.seconds()
        line = LogLine(
            step=self._trainer.steps,
            images_seen=self._trainer.images_seen,
            seconds=round(now, 3),
            progress=self._budget.progress(now, self._trainer.steps),
            loss_discriminator=losses.discriminator,
            loss_generator=losses.generator,
            penalty=losses.penalty,
            learning_rate=rates.learning_rate,
            gamma=rates.gamma,
            images_per_second=(self._trainer.images_seen - self._logged_images) / (now - self._logged_at),
        )
        self._logged_at, self._logged_images = now, self._trainer.images_seen
        self._folder.write_log(line)
        self._shown.log(line)

    def _draw(self, rates: Rates) -> None:
        self._log(rates)
        self._folder.write_samples(self._trainer.sample_grid(), self._trainer.steps)

    def _save(self, rates: Rates) -> None:
        self._log(rates)
        self._trainer.check_finite()  # the last update came after the losses that were looked at
        seconds = self._clock.seconds()
        state = {
            "trainer": self._trainer.state_dict(),
            "seconds": seconds,
            "classes": self._trainer.generator.classes,
            "image_shape": list(self._trainer.generator.image_shape),
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
            images_seen=trainer.images_seen,
            commit=origin.commit,
            versions=versions(),
            seed=origin.config.seed,
            device=device,
            precision=str(origin.runtime.dtype).removeprefix("torch."),
            threads=origin.runtime.threads,
            dataset=origin.dataset.name,
            dataset_sha256=origin.dataset.sha256,
            parameters_generator=sum(p.numel() for p in trainer.generator.parameters()),
            parameters_discriminator=sum(p.numel() for p in trainer.discriminator.parameters()),
        )
