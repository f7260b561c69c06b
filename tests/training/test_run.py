"""The run folder: never overwritten, never half written, read back as it was."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from brigantine_training import run
from brigantine_training.errors import RunError
from brigantine_training.gan import load_generator
from brigantine_training.networks import build_generator
from brigantine_training.run import LogLine, RunFolder, RunRecord

from tests.training.digits import tiny_config

LINE = LogLine(
    step=10,
    seconds=1.0,
    progress=0.5,
    figures={"images_seen": 80, "loss_generator": 0.6},
    words="D 0.500  G 0.600  penalty 0.10  80 img/s",
)
RECORD = RunRecord(
    command="brigantine-train run mnist",
    seconds=1.0,
    steps=10,
    commit="unknown",
    versions={"torch": "2"},
    seed=0,
    device="cpu",
    precision="float32",
    threads=1,
    dataset="mnist",
    dataset_sha256="0",
    counts={"images_seen": 80, "parameters_generator": 1},
)


def test_a_folder_with_content_is_not_overwritten(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"it has content\. Give another --out"):
        RunFolder.create(tmp_path, tiny_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_configuration_is_read_back(tmp_path: Path):
    config = tiny_config(seed=5)
    RunFolder.create(tmp_path / "deep" / "run", config).close()
    assert run.read_config(tmp_path / "deep" / "run") == config
    with pytest.raises(RunError, match=r"no config\.json in it"):
        run.read_config(tmp_path)


def test_resuming_cuts_the_log_back_to_the_checkpoint(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", tiny_config())
    for step in (10, 20, 30):
        folder.write_log(replace(LINE, step=step))
    folder.close()
    longer = tiny_config(budget_steps=40)
    RunFolder.resume(tmp_path / "run", longer, last_step=20).close()
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20]
    assert run.read_config(tmp_path / "run") == longer


def test_samples_are_drawn_as_png(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", tiny_config())
    path = folder.write_samples(torch.rand(100, 1, 8, 8), step=10)
    folder.close()
    assert path.name == "samples-0000010.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_checkpoint_replaces_the_last_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = RunFolder.create(tmp_path / "run", tiny_config())
    folder.write_checkpoint({"value": torch.ones(2)}, RECORD)

    def fail(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        folder.write_checkpoint({"value": torch.zeros(2)}, RECORD)
    folder.close()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.json", "tensorboard", "checkpoint.pt", "run.json"
    }  # fmt: skip
    assert torch.equal(run.read_checkpoint(tmp_path / "run")["value"], torch.ones(2))
    assert run.read_record(tmp_path / "run") == RECORD


def test_a_missing_or_damaged_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(RunError, match=r"no checkpoint\.pt in it yet"):
        run.read_checkpoint(tmp_path)
    with pytest.raises(RunError, match=r"no run\.json in it yet.*another folder"):
        run.read_record(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="damaged"):
        run.read_checkpoint(tmp_path)


def test_the_averaged_generator_is_loaded(tmp_path: Path):
    config = tiny_config()
    generator = build_generator(config, 10, (1, 8, 8))
    folder = RunFolder.create(tmp_path / "run", config)
    state = {
        "trainer": {"ema": {"generator": generator.state_dict()}},
        "classes": 10,
        "image_shape": [1, 8, 8],
    }
    folder.write_checkpoint(state, RECORD)
    folder.close()
    loaded, loaded_config = load_generator(tmp_path / "run")
    assert loaded_config == config
    assert loaded.image_shape == (1, 8, 8)
    assert not loaded.training
    z, label = torch.randn(3, 4), torch.arange(3)
    assert torch.equal(loaded(z, label), generator.eval()(z, label))


def test_the_commit_is_a_hash_or_unknown():
    commit = run.commit().removesuffix("-dirty")
    assert commit == "unknown" or len(commit) == 40


def test_versions_name_what_training_runs_on():
    assert set(run.versions()) == {"python", "brigantine", "tokenizers", "torch", "torchvision"}
