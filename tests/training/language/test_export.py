"""Export: the graph predicts what the network predicts, and the folder is what the service needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from brigantine.model import Model
from brigantine.session import Session, SessionOptions
from brigantine_training.errors import ExportMismatch
from brigantine_training.finish import export_run
from brigantine_training.language import export as module
from brigantine_training.language.cache import Cache
from brigantine_training.language.corpus import Corpus
from brigantine_training.language.export import Facts, export_language, rounded
from brigantine_training.language.family import load_network
from brigantine_training.language.graph import llama_graph
from brigantine_training.language.network import Llama

from tests.training.language.plays import tiny_language_config

FACTS = Facts("tiny", "Words.", "CC0", {"command": "test"})


def test_the_folder_is_what_the_service_needs(exported: Model):
    manifest = exported.manifest
    assert sorted(path.name for path in exported.path.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "manifest.json", "model.onnx", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert set(manifest.files) == {
        "config.json", "generation_config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip
    assert (manifest.name, manifest.plugin, manifest.max_batch, manifest.licence) == (
        "plays",
        "text",
        16,
        "CC0",
    )
    shapes = {spec.name: spec.shape for spec in (*manifest.inputs, *manifest.outputs)}
    assert shapes["input_ids"] == ("batch", "sequence")
    assert shapes["attention_mask"] == ("batch", "total_sequence")
    assert shapes["past_key_values.1.value"][:2] == ("batch", 1)
    assert shapes["logits"] == ("batch", "sequence", 288)
    assert len(shapes) == 2 + 1 + 2 * 2 * 2
    assert manifest.training["tokens_seen"] == 1280


def test_the_parity_is_of_prompts_of_steps_and_of_batches(exported: Model):
    parity = exported.manifest.parity
    assert 0 < max(parity.values()) <= 2e-5
    assert {"1x1+0", "7x5+0", "1x5+37", "7x1+37", "2x1, 24 times"} <= set(parity)
    assert "7x5+37" not in parity, "GroupQueryAttention does not take it"


def test_what_comes_in_parts_is_read_as_in_one(exported: Model, run_dir: Path):
    """Without the module's own comparison: the cache against one pass of the network."""
    network, _ = load_network(run_dir)
    ids = np.random.default_rng(0).integers(288, size=(1, 50))
    with torch.inference_mode():
        expected = network(torch.from_numpy(ids)).numpy()
    cache = Cache(Session.open(exported, SessionOptions(device="cpu")), 1)
    parts = [cache.run(ids[:, start:stop]) for start, stop in ((0, 7), (7, 8), (8, 30), (30, 50))]
    assert np.abs(np.concatenate(parts, 1) - expected).max() <= 2e-5


def test_the_matrices_are_stored_in_two_bytes_and_the_file_is_the_same_each_time(
    exported: Model, run_dir: Path, corpus: Corpus
):
    network, tokenizer = load_network(run_dir)
    again = export_language(network, tokenizer, exported.path.parent / "again", FACTS)
    assert again.manifest.files == exported.manifest.files
    matrices = sum(weight.numel() for weight in network.parameters() if weight.ndim == 2)
    assert exported.graph.stat().st_size < 2 * matrices + 40_000
    assert b"/brigantine_training/" not in exported.graph.read_bytes()


def test_rounding_changes_the_matrices_to_what_float16_holds():
    torch.manual_seed(0)
    network = Llama(tiny_language_config())
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    for name, weight in rounded(network).state_dict().items():
        expected = before[name].half().float() if weight.ndim == 2 else before[name]
        assert torch.equal(weight, expected), name


@pytest.mark.filterwarnings("ignore")
def test_int8_is_smaller_and_near(run_dir: Path, corpus: Corpus, exported: Model):
    model = export_run(run_dir, corpus, int8=True)
    assert model.path == run_dir / "model-int8"
    assert model.manifest.name == "plays-int8"
    assert 1e-4 < max(model.manifest.parity.values()) < 4
    assert b"MatMulInteger" in model.graph.read_bytes()
    assert Model.open(exported.path).manifest.files == exported.manifest.files


def test_a_graph_that_predicts_something_else_is_not_exported(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network, tokenizer = load_network(run_dir)

    def other(config: dict, weights: dict, half: bool):
        return llama_graph(
            config, {**weights, "model.norm.weight": weights["model.norm.weight"] * 1.01}, half
        )

    monkeypatch.setattr(module, "llama_graph", other)
    with pytest.raises(
        ExportMismatch, match=r"model\.onnx at 1x1\+0 .*expected the network's logits within 4e-05, got"
    ):
        export_language(network, tokenizer, tmp_path / "model", FACTS)
    assert not (tmp_path / "model").exists()
