"""The family of language models: from a run to a model that writes, judged as it will be served."""

from __future__ import annotations

from pathlib import Path

from brigantine.model import Model
from tokenizers import Tokenizer

from ..config import LanguageConfig
from ..family import Family
from ..run import MODEL_FOLDER, read_checkpoint, read_config, read_record
from .card import write_card
from .corpus import Corpus, open_corpus
from .evaluate import evaluate_language
from .export import Facts, export_language, rounded
from .huggingface import write_checkpoint
from .network import Llama
from .provenance import LanguageProvenance
from .trainer import LanguageTrainer

__all__ = ["CHECKPOINT_FOLDER", "INT8_FOLDER", "LANGUAGE", "load_network"]

CHECKPOINT_FOLDER = "hf"
"""Where in a run the network is written in Hugging Face's layout."""
INT8_FOLDER = "model-int8"
"""Where in a run its model with 8-bit weights is written."""


def load_network(run_dir: Path) -> tuple[Llama, Tokenizer]:
    """The averaged network of a run, as it is exported, on the CPU; and its tokenizer.

    Raises:
        RunError: no run in `run_dir`, no checkpoint yet, or a damaged one.
    """
    config = read_config(run_dir)
    assert isinstance(config, LanguageConfig)
    state = read_checkpoint(run_dir)
    network = Llama(config)
    network.load_state_dict(state["trainer"]["ema"]["generator"])
    return rounded(network).eval().requires_grad_(False), Tokenizer.from_str(state["tokenizer"])


def _export(run_dir: Path, corpus: Corpus, int8: bool) -> Model:
    network, tokenizer = load_network(run_dir)
    record = read_record(run_dir)
    corpus.check_is(record.dataset_sha256, str(run_dir))
    provenance = LanguageProvenance.of(
        record,
        network.config,
        corpus,
        train_characters=len(corpus.train_text),
        test_characters=len(corpus.test_text),
    )
    facts = Facts(
        name=f"{corpus.model}-int8" if int8 else corpus.model,
        description=(
            f"Writes in the manner of {corpus.about}: a causal transformer of Llama's shape with "
            f"{provenance.parameters / 1e6:.1f} M parameters, trained from nothing on {corpus.name}."
        ),
        licence=corpus.licence,
        training=provenance.model_dump(mode="json"),
    )
    write_checkpoint(run_dir / CHECKPOINT_FOLDER, network, tokenizer)
    model = export_language(
        network, tokenizer, run_dir / (INT8_FOLDER if int8 else MODEL_FOLDER), facts, int8
    )
    write_card(model)
    return model


def _describe(config: LanguageConfig) -> str:
    return f"a Llama of {config.layers} layers, {config.width} wide,"


LANGUAGE: Family[LanguageConfig, Corpus] = Family(
    open_data=open_corpus,
    describe=_describe,
    trainer=LanguageTrainer,
    export=_export,
    evaluate=evaluate_language,
    write_card=write_card,
)
