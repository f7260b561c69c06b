"""A whole run, from its folder and back."""

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from brigantine_training.config import GanConfig
from brigantine_training.errors import DivergedError
from brigantine_training.loop import Interval, Loop, Origin, StopSignal
from brigantine_training.progress import TrainingProgress
from brigantine_training.run import RunFolder, read_checkpoint, read_record
from brigantine_training.runtime import choose_runtime
from brigantine_training.trainer import GanTrainer
from rich.console import Console

from tests.training.digits import tiny_config, tiny_dataset


def _never() -> bool:
    return False


def _after(steps: int) -> Callable[[], bool]:
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def _train(out: Path, config: GanConfig, stop: Callable[[], bool] = _never, resume: bool = False) -> bool:
    checkpoint = read_checkpoint(out) if resume else None
    if checkpoint is None:
        folder = RunFolder.create(out, config)
    else:
        folder = RunFolder.resume(out, config, checkpoint["trainer"]["steps"])
    origin = Origin(config, tiny_dataset(), choose_runtime(config), "brigantine-train run mnist")
    with TrainingProgress(Console(file=io.StringIO())) as shown:
        trainer = GanTrainer(config, tiny_dataset(), origin.runtime)
        done = Loop(trainer, origin, folder, shown, checkpoint).train(stop)
    folder.close()
    return done


def _assert_equal(one: object, other: object, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            _assert_equal(value, other[key], f"{where}.{key}")
    else:
        assert one == other, where


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path):
    config = tiny_config(budget_steps=20)
    assert _train(tmp_path / "straight", config)
    assert not _train(tmp_path / "parts", config, stop=_after(10))
    assert read_record(tmp_path / "parts").steps == 10
    assert _train(tmp_path / "parts", config, resume=True)
    straight, parts = (read_checkpoint(tmp_path / name)["trainer"] for name in ("straight", "parts"))
    _assert_equal(straight, parts, "trainer")


def test_a_run_that_is_stopped_before_its_first_step_can_be_resumed(tmp_path: Path):
    assert not _train(tmp_path / "run", tiny_config(budget_steps=2), stop=lambda: True)
    assert _train(tmp_path / "run", tiny_config(budget_steps=2), resume=True)
    assert read_record(tmp_path / "run").steps == 2


def test_a_run_leaves_its_record_its_log_and_its_samples(tmp_path: Path):
    config = tiny_config(budget_steps=4, log_every_seconds=1e-6, sample_every_seconds=1e-6)
    _train(tmp_path / "run", config)
    record = read_record(tmp_path / "run")
    assert (record.steps, record.counts["images_seen"], record.threads, record.precision) == (
        4,
        32,
        1,
        "float32",
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["progress"] == 1
    assert len(list((tmp_path / "run").glob("samples-*.png"))) == 4
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_the_time_budget_ends_a_run(tmp_path: Path):
    assert _train(tmp_path / "run", tiny_config(budget_seconds=0.2, budget_steps=None))
    assert 0.2 <= read_record(tmp_path / "run").seconds < 60


def test_a_run_that_diverges_keeps_its_last_checkpoint(tmp_path: Path):
    config = tiny_config(budget_steps=3)
    _train(tmp_path / "run", config)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    checkpoint = read_checkpoint(tmp_path / "run")
    checkpoint["trainer"]["discriminator"]["enter.weight"].fill_(float("nan"))
    config = config.changed(budget_steps=6)
    folder = RunFolder.resume(tmp_path / "run", config, 3)
    origin = Origin(config, tiny_dataset(), choose_runtime(config), "brigantine-train run mnist")
    trainer = GanTrainer(config, tiny_dataset(), origin.runtime)
    loop = Loop(trainer, origin, folder, TrainingProgress(Console(file=io.StringIO())), checkpoint)
    with pytest.raises(DivergedError):
        loop.train(_never)
    folder.close()
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_is_given_back(number: signal.Signals):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert stop.received == number
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_acts_at_once():
    with StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interval_is_due_once_each_time():
    interval = Interval(10, now=0)
    assert [interval.due(now) for now in (5, 10, 12, 25, 30)] == [False, True, False, True, False]
