"""What is written for Hugging Face is read by `transformers`, and means the same there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brigantine.model import Model
from brigantine_training import torchvision_guard
from brigantine_training.language.family import load_network
from brigantine_training.language.network import Llama
from tokenizers import Tokenizer

TEXT = "\nKING:\nI love thee not, naïve 語.  And\tgo"


@pytest.fixture(scope="module")
def transformers() -> Any:
    assert torchvision_guard  # transformers imports torchvision, which may need mending
    return importlib.import_module("transformers")


@pytest.fixture(scope="module")
def folder(run_dir: Path, exported: Model) -> Path:
    return run_dir / "hf"


@pytest.fixture(scope="module")
def ours(run_dir: Path) -> tuple[Llama, Tokenizer]:
    return load_network(run_dir)


def test_transformers_computes_the_same_logits(
    folder: Path, ours: tuple[Llama, Tokenizer], transformers: Any
):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    ids = torch.randint(288, (3, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(theirs.eval()(ids).logits, ours[0](ids), atol=2e-5)
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (0, 0)
    assert theirs.config.max_position_embeddings == 64
    assert theirs.get_input_embeddings().weight.data_ptr() == theirs.get_output_embeddings().weight.data_ptr()


def test_transformers_reads_the_same_tokens(folder: Path, ours: tuple[Llama, Tokenizer], transformers: Any):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ids = theirs(TEXT)["input_ids"]
    assert ids == ours[1].encode(TEXT).ids
    assert theirs.decode(ids) == TEXT
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.model_max_length) == (0, 0, 64)


def test_transformers_writes_the_same_text(folder: Path, exported: Model, transformers: Any):
    from brigantine_training.language.evaluate import Writer

    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    writer = Writer(exported)
    ids = [5, 80, 12]
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=30, min_new_tokens=30, do_sample=False)[
        0
    ].tolist()
    for _ in range(30):
        logits = writer.predict(np.array([ids]))[0, -1]
        logits[0] = -np.inf  # as min_new_tokens does with the end of the text
        ids.append(int(logits.argmax()))
    assert made == ids


def test_the_model_has_the_same_small_files(folder: Path, exported: Model):
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (exported.path / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["num_key_value_heads"] == 1
    assert config["tie_word_embeddings"] is True
