"""From a run to a judged model with its card, and the commands that do it again."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from brigantine.model import Model
from brigantine_training import cli, data
from brigantine_training.card import card_text, write_card
from brigantine_training.data import Dataset
from brigantine_training.errors import ConfigError, DataError, RunError, ScoringError
from brigantine_training.evaluate import MEASURES, Recipe
from brigantine_training.finish import evaluate_model, export_run, finish_run
from brigantine_training.networks import build_generator
from brigantine_training.provenance import GanProvenance
from brigantine_training.run import RunFolder, RunRecord
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.training.digits import tiny_config
from tests.training.shapes import shapes_dataset

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return shapes_dataset()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A run of no steps: a generator that has learned nothing, saved like any other."""
    path = tmp_path_factory.mktemp("runs") / "run"
    folder = RunFolder.create(path, tiny_config())
    torch.manual_seed(0)
    generator = build_generator(tiny_config(), len(dataset.labels), dataset.image_shape)
    state = {
        "trainer": {"ema": {"generator": generator.state_dict()}},
        "classes": len(dataset.labels),
        "image_shape": list(dataset.image_shape),
    }
    record = RunRecord(
        command="brigantine-train run mnist --budget 10m",
        seconds=90.0,
        steps=10,
        commit="c0ffee",
        versions={"torch": "2"},
        seed=3,
        device="a small cpu",
        precision="float32",
        threads=1,
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        counts={"images_seen": 80, "parameters_generator": 1234, "parameters_discriminator": 567},
    )
    folder.write_checkpoint(state, record)
    folder.close()
    return path


@pytest.fixture(scope="module")
def exported(run_dir: Path, dataset: Dataset) -> Model:
    return export_run(run_dir, dataset)


def test_a_run_ends_as_a_judged_model(run_dir: Path, dataset: Dataset, quick_recipe: Recipe):
    console = Console(record=True, width=120, quiet=True)
    finish_run(run_dir, dataset, console, threads=1)
    model = Model.open(run_dir / "model")
    assert list(model.manifest.scores) == list(MEASURES)
    assert {score.samples for score in model.manifest.scores.values()} == {200}
    assert model.manifest.scores["fid"].value > 20 * (model.manifest.scores["fid"].floor or 0)
    assert model.manifest.labels[1].model_dump() == {"name": "cross", "aliases": ("1",)}
    provenance = GanProvenance.read(model.manifest)
    assert provenance.data.sha256 == dataset.sha256
    assert provenance.evaluation is not None
    assert provenance.evaluation.classifier == quick_recipe.key(dataset)
    assert (provenance.evaluation.resamples, provenance.evaluation.prdc_reference) == (3, 200)
    card = (model.path / "README.md").read_text(encoding="utf-8")
    assert card == card_text(model.manifest)
    fid = model.manifest.scores["fid"]
    for part in (
        "brigantine-train run mnist --budget 10m",
        f"| FID | lower | {fid.value:.3f} |",
        "c0ffee",
        "CC0",
        "1 = cross or 1",
    ):
        assert part in card


def test_the_samples_are_a_row_for_each_label(exported: Model, tmp_path: Path):
    model = exported._replace(path=shutil.copytree(exported.path, tmp_path / "model"))
    write_card(model)
    with Image.open(model.path / "samples.png") as picture:
        assert picture.size == (2 * 10 * (8 + 2), 2 * 3 * (8 + 2))
        assert np.asarray(picture)[0].tolist() == [128] * picture.width
    assert "Not judged yet" in (model.path / "README.md").read_text(encoding="utf-8")


def test_other_data_than_it_was_trained_on_is_refused(exported: Model, dataset: Dataset):
    with pytest.raises(DataError, match="give the folder that it was trained on"):
        evaluate_model(exported, replace(dataset, sha256="6" * 64), QUIET)


def test_a_run_is_not_exported_as_trained_on_other_data(run_dir: Path, dataset: Dataset):
    with pytest.raises(DataError, match="give the folder that it was trained on"):
        export_run(run_dir, replace(dataset, sha256="6" * 64))


def test_a_model_without_provenance_is_refused(exported: Model):
    manifest = exported.manifest.model_copy(update={"training": {"command": "magic"}})
    with pytest.raises(ScoringError, match=r"missing or wrong: commit, .*data"):
        GanProvenance.read(manifest)


def test_the_commands_export_and_judge_again(
    run_dir: Path, dataset: Dataset, quick_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(data._READERS, "mnist", lambda data_dir: dataset)
    runner = CliRunner()

    def command(*words: str) -> str:
        return runner.invoke(cli.app, [*words, "--data-dir", str(run_dir)], catch_exceptions=False).output

    assert "exported to" in command("export", str(run_dir))
    model = run_dir / "model"
    quickly = ("evaluate", str(model), "--samples", "100", "--resamples", "3", "--threads", "1")
    assert "memorisation_auc" in command(*quickly)
    assert Model.open(model).manifest.scores == {}
    command(*quickly, "--write")
    scores = Model.open(model).manifest.scores
    assert scores["fid"].samples == 100
    assert "| FID | lower |" in (model / "README.md").read_text(encoding="utf-8")
    command(*quickly, "--write")
    assert Model.open(model).manifest.scores == scores


def test_a_run_without_a_checkpoint_cannot_be_exported(tmp_path: Path, dataset: Dataset):
    RunFolder.create(tmp_path / "run", tiny_config()).close()
    with pytest.raises(RunError, match=r"no checkpoint\.pt in it yet"):
        export_run(tmp_path / "run", dataset)


def test_images_have_no_export_of_8_bit_weights(run_dir: Path, dataset: Dataset):
    with pytest.raises(ConfigError, match="--int8: only language models"):
        export_run(run_dir, dataset, int8=True)
