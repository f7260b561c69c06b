"""The card says what the manifest says."""

from __future__ import annotations

import io

import pytest
from brigantine.model import Model
from brigantine_training.errors import ScoringError
from brigantine_training.family import Draws
from brigantine_training.finish import evaluate_model
from brigantine_training.language.card import card_text
from brigantine_training.language.corpus import Corpus
from brigantine_training.language.evaluate import Writer
from rich.console import Console


def test_a_judged_model_has_its_figures_and_their_meaning_on_its_card(exported: Model, corpus: Corpus):
    manifest = evaluate_model(exported, corpus, Console(file=io.StringIO()), Draws(600, 3)).manifest
    card = card_text(manifest, "To be")
    copy = manifest.scores["longest_copy"]
    for part in (
        "# Model card\n\nWrites in the manner of the tests' plays: a causal transformer of Llama's shape",
        "```text\nTo be\n```\n\nNot picked",
        f"| longest copy | like real text | {copy.value:.3f} | {copy.low:.3f} - {copy.high:.3f} | {copy.floor:.3f} |",
        "- **novel 4-grams**: share of four successive words",
        "| 7-grams of characters, Kneser-Ney | ",
        "brigantine-train run shakespeare --budget 45m",
        "c0ffee",
        "| licence of the data | CC0 |",
        "| output | `present.1.value` | float32 | [batch, 1, total_sequence, 16] |",
        "a past of 0 begins a text",
        "trained on windows of 64 tokens",
    ):
        assert part in card


def test_a_model_that_was_not_judged_says_so(exported: Model):
    card = (exported.path / "README.md").read_bytes().decode()  # random weights write any line end
    assert "Not judged yet" in card
    first = Writer(exported).write(1200, 0)[0].strip()
    assert f"```text\n{first}" in card


def test_a_model_without_provenance_is_refused(exported: Model):
    manifest = exported.manifest.model_copy(update={"training": {"command": "magic"}})
    with pytest.raises(ScoringError, match=r"missing or wrong: commit, .*tokens_seen"):
        card_text(manifest, "")
