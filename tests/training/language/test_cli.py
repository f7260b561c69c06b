"""The same commands as for images, on a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from brigantine.model import Model
from brigantine_training import cli
from brigantine_training.errors import ConfigError, DataError, RunError
from brigantine_training.language.evaluate import LANGUAGE_MEASURES
from brigantine_training.run import read_checkpoint, read_record
from typer.testing import CliRunner

from tests.training.language.plays import written

TINY = [
    "vocabulary=272", "layers=1", "heads=1", "key_heads=1", "width=16", "inner_width=16", "context_tokens=64",
    "batch_windows=2", "device=cpu", "threads=1", "precision=float32",
]  # fmt: skip


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "tinyshakespeare.txt").write_text(written(150, seed=1), encoding="utf-8")
    return tmp_path


def _command(*words: str) -> str:
    return CliRunner().invoke(cli.app, list(words), catch_exceptions=False).output


def _run(data_dir: Path, out: Path, *more: str) -> str:
    settings = [word for setting in TINY for word in ("--set", setting)]
    return _command("run", "shakespeare", "--data-dir", str(data_dir), "--out", str(out), *settings, *more)


def test_a_run_ends_as_a_judged_model_with_its_card(data_dir: Path):
    out = data_dir / "run"
    said = _run(data_dir, out, "--steps", "3")
    assert "a Llama of 1 layers, 16 wide, on cpu" in said
    assert "nats a token" in said
    assert "exported to" in said
    record = read_record(out)
    assert (record.steps, record.dataset, record.counts["tokens_seen"]) == (3, "tinyshakespeare", 3 * 2 * 64)
    line = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert {"step", "loss", "tokens_per_second", "matrix_learning_rate"} <= set(line)
    assert [path.name for path in out.glob("samples-*")] == ["samples-0000003.txt"]
    model = Model.open(out / "model")
    assert list(model.manifest.scores) == list(LANGUAGE_MEASURES)
    assert model.manifest.name == "shakespeare"
    card = (model.path / "README.md").read_text(encoding="utf-8")
    bits = model.manifest.scores["bits_per_character"]
    assert f"| bits per character | lower | {bits.value:.3f} |" in card
    assert (out / "hf" / "model.safetensors").is_file()


def test_a_resumed_run_is_one_that_was_not_stopped(data_dir: Path):
    straight, parts = data_dir / "straight", data_dir / "parts"
    _run(data_dir, straight, "--steps", "4", "--no-evaluate")
    _run(data_dir, parts, "--steps", "2", "--no-evaluate")
    _run(data_dir, parts, "--steps", "4", "--no-evaluate", "--resume")
    one, other = (read_checkpoint(path)["trainer"] for path in (straight, parts))
    assert one["steps"] == other["steps"] == 4
    assert one["windows"]["position"] == other["windows"]["position"]
    assert read_record(parts).command.count("\n") == 1


def test_the_commands_export_and_judge_again(data_dir: Path):
    out = data_dir / "run"
    _run(data_dir, out, "--steps", "1", "--no-evaluate")
    assert f"exported to {out / 'model'}" in _command("export", str(out), "--data-dir", str(data_dir))
    assert "model-int8" in _command("export", str(out), "--data-dir", str(data_dir), "--int8")
    for model in ("model", "model-int8"):
        judged = (
            "evaluate",
            str(out / model),
            "--data-dir",
            str(data_dir),
            "--samples",
            "200",
            "--threads",
            "1",
        )
        assert "bits_per_character" in _command(*judged)
        assert Model.open(out / model).manifest.scores == {}
        _command(*judged, "--write")
        scores = Model.open(out / model).manifest.scores
        assert scores["longest_copy"].samples == 200
        _command(*judged, "--write")
        assert Model.open(out / model).manifest.scores == scores


def test_what_cannot_be_is_refused_with_its_remedy(data_dir: Path):
    with pytest.raises(ConfigError, match="Did you mean 'context_tokens'"):
        _run(data_dir, data_dir / "run", "--set", "context_token=8")
    with pytest.raises(ConfigError, match="width must be a multiple of twice the heads"):
        _run(data_dir, data_dir / "run", "--set", "heads=3")
    with pytest.raises(ConfigError, match="vocabulary: Input should be a multiple of 16, got 300"):
        _run(data_dir, data_dir / "run", "--set", "vocabulary=300")
    with pytest.raises(DataError, match=r"expected .*tinyshakespeare\.txt, found none"):
        _run(data_dir / "nowhere", data_dir / "run")
    assert not (data_dir / "run").exists()


def test_a_run_is_not_resumed_as_another_kind(data_dir: Path):
    _run(data_dir, data_dir / "run", "--steps", "1", "--no-evaluate")
    with pytest.raises(RunError, match=r"dataset \(was 'tinyshakespeare', asked 'mnist'\)"):
        _command("run", "mnist", "--data-dir", str(data_dir), "--out", str(data_dir / "run"), "--resume")
