"""A whole run on a text, from its folder and back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from brigantine_training.language.trainer import LanguageTrainer
from brigantine_training.loop import Loop, Origin
from brigantine_training.progress import TrainingProgress
from brigantine_training.run import RunFolder, read_checkpoint, read_record
from brigantine_training.runtime import choose_runtime
from rich.console import Console

from tests.training.language.plays import tiny_corpus, tiny_language_config


def _train(out: Path, stop: Callable[[], bool], resume: bool = False) -> bool:
    config, corpus = tiny_language_config(budget_steps=20), tiny_corpus()
    checkpoint = read_checkpoint(out) if resume else None
    folder = RunFolder.resume(out, config, 10) if resume else RunFolder.create(out, config)
    origin = Origin(config, corpus, choose_runtime(config), "brigantine-train run shakespeare")
    with TrainingProgress(Console(file=io.StringIO())) as shown:
        trainer = LanguageTrainer(config, corpus, origin.runtime)
        done = Loop(trainer, origin, folder, shown, checkpoint).train(stop)
    folder.close()
    return done


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path):
    asked = iter(range(10))
    assert _train(tmp_path / "straight", lambda: False)
    assert not _train(tmp_path / "parts", lambda: next(asked, None) is None)
    assert read_record(tmp_path / "parts").steps == 10
    torch.manual_seed(5)
    assert _train(tmp_path / "parts", lambda: False, resume=True)

    straight, parts = (read_checkpoint(tmp_path / name) for name in ("straight", "parts"))
    assert straight["tokenizer"] == parts["tokenizer"]
    for part in ("network", "ema"):
        one, other = straight["trainer"][part], parts["trainer"][part]
        if part == "ema":
            assert one["updates"] == other["updates"] == 20
            one, other = one["generator"], other["generator"]
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (tmp_path / "parts" / "samples-0000020.txt").read_text() == (
        tmp_path / "straight" / "samples-0000020.txt"
    ).read_text()
