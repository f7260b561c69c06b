"""A run of no steps, saved like any other, and its model: random weights, which are quick to judge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from brigantine.model import Model
from brigantine_training.finish import export_run
from brigantine_training.language.corpus import Corpus
from brigantine_training.language.network import Llama
from brigantine_training.language.tokenizer import train_tokenizer
from brigantine_training.run import RunFolder, RunRecord

from tests.training.language.plays import tiny_corpus, tiny_language_config


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return tiny_corpus()


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    config = tiny_language_config(context_tokens=64)
    folder = RunFolder.create(path, config)
    torch.manual_seed(0)
    network = Llama(config)
    with torch.no_grad():
        for weight in network.parameters():  # as after training: far from where it began
            weight.normal_(1 if weight.ndim == 1 else 0, 0.2)
    state = {
        "trainer": {"ema": {"generator": network.state_dict()}},
        "tokenizer": train_tokenizer(corpus.train_text, config.vocabulary).to_str(),
    }
    record = RunRecord(
        command="brigantine-train run shakespeare --budget 45m",
        seconds=90.0,
        steps=10,
        commit="c0ffee",
        versions={"torch": "2"},
        seed=3,
        device="a small cpu",
        precision="float32",
        threads=1,
        dataset=corpus.name,
        dataset_sha256=corpus.sha256,
        counts={"tokens_seen": 1280, "parameters": 27_000},
    )
    folder.write_checkpoint(state, record)
    folder.close()
    return path


@pytest.fixture(scope="session")
def exported(run_dir: Path, corpus: Corpus) -> Model:
    return export_run(run_dir, corpus)
