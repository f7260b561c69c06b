"""The language model that ships: small, described, and as good as its manifest says."""

from __future__ import annotations

import re

import pytest
from brigantine.model import Model
from brigantine.store import Store
from brigantine_training.language.card import card_text
from brigantine_training.language.corpus import open_corpus
from brigantine_training.language.evaluate import CHARACTERS, Writer, bits_per_character
from brigantine_training.language.export import MOST_ERROR
from brigantine_training.language.provenance import LanguageProvenance

from tests.mnist import DATA_DIR, NO_PLAYS

MOST_BYTES = 8_000_000
MOST_BITS = 2.17
"""1.50 nats."""


@pytest.fixture(scope="module")
def model() -> Model:
    return Store().get("shakespeare").open()


def test_it_is_small(model: Model):
    assert sum(path.stat().st_size for path in model.path.iterdir()) <= MOST_BYTES


def test_the_card_is_what_the_manifest_says(model: Model):
    card = (model.path / "README.md").read_text(encoding="utf-8")
    sample = re.search(r"```text\n(.*?)\n```\n\nNot picked", card, re.S)
    assert sample
    assert card == card_text(model.manifest, sample[1])


def test_it_was_trained_by_its_preset_from_a_commit(model: Model):
    provenance = LanguageProvenance.read(model.manifest)
    assert provenance.command.startswith("brigantine-train run training/presets/shakespeare.toml ")
    assert re.fullmatch(r"[0-9a-f]{40}", provenance.commit)
    assert max(model.manifest.parity.values()) <= MOST_ERROR
    for text in ((model.path / "manifest.json").read_text(), (model.path / "README.md").read_text()):
        assert not re.search(r"(?<![\w.:/])/(work|var|root|home|tmp)/", text), (
            "nothing of the machine it was made on"
        )


def test_it_was_judged_by_the_stated_protocol(model: Model):
    protocol = LanguageProvenance.read(model.manifest).evaluation
    assert protocol is not None
    assert (protocol.context_tokens, protocol.piece_tokens) == (256, 255)
    assert (protocol.characters, protocol.resamples) == (CHARACTERS, 3)
    bits = model.manifest.scores["bits_per_character"]
    assert bits.samples == 111_540
    assert bits.value <= MOST_BITS
    assert bits.high < min(protocol.references.values())


@pytest.mark.skipif(not (DATA_DIR / "tinyshakespeare.txt").is_file(), reason=NO_PLAYS)
def test_it_needs_as_few_bits_as_it_says(model: Model):
    corpus = open_corpus("tinyshakespeare", DATA_DIR)
    assert corpus.sha256 == LanguageProvenance.read(model.manifest).data.sha256
    stated = model.manifest.scores["bits_per_character"]
    assert bits_per_character(Writer(model), corpus.test_text).value == pytest.approx(stated.value, abs=2e-3)
