"""The figures of a model against slow ones, and those of real text beside them."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from brigantine.model import Model
from brigantine_training.errors import DataError, ScoringError
from brigantine_training.family import Draws
from brigantine_training.finish import evaluate_model
from brigantine_training.language.corpus import Corpus
from brigantine_training.language.evaluate import LANGUAGE_MEASURES, Writer, bits_per_character, score_writer
from brigantine_training.language.evaluate.scores import Texts, cut_like
from brigantine_training.language.family import load_network
from brigantine_training.language.provenance import LanguageProvenance
from rich.console import Console

QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def writer(exported: Model) -> Writer:
    return Writer(exported)


def test_bits_per_character_are_those_of_the_network(writer: Writer, run_dir, corpus: Corpus):
    network, tokenizer = load_network(run_dir)
    ids = tokenizer.encode(corpus.test_text).ids
    stream = torch.tensor([0, *ids])
    nats = 0.0
    with torch.inference_mode():
        for start in range(0, len(ids), 64):
            stop = min(start + 64, len(ids))
            odds = network(stream[None, start:stop])[0].double().log_softmax(1)
            nats -= odds[torch.arange(stop - start), stream[start + 1 : stop + 1]].sum().item()
    score = bits_per_character(writer, corpus.test_text)
    assert score.value == pytest.approx(nats / math.log(2) / len(corpus.test_text), abs=1e-4)
    assert score.low < score.value < score.high
    assert (score.samples, score.floor) == (len(corpus.test_text), None)


def test_a_character_of_several_bytes_is_one(writer: Writer):
    text = "語é" * 60  # its tokens are bytes, and windows end inside of a character
    score = bits_per_character(writer, text)
    assert score.samples == 120
    ids = writer.tokenizer.encode(text).ids
    assert len(ids) > 250
    assert score.value > 0


def test_real_text_is_cut_like_the_pieces():
    text = "".join(f"{line:03d}\n" for line in range(100))
    cut = cut_like(["x" * 10, "y" * 30, "z" * 20], text)
    assert [len(piece) for piece in cut] == [10, 30, 20]
    assert all(piece in text for piece in cut)
    assert [piece[:3] for piece in cut] == ["000", "030", "066"]


def test_texts_are_measured_against_the_training_text():
    texts = Texts("the king shall go to war with france . the king my lord shall come")
    figures = texts.measure(["The king shall go to", "my zounds"])
    assert figures["known_words"] == pytest.approx(6 / 7)
    assert figures["novel_4grams"] == 0
    assert figures["longest_copy"] == len("he king shall go to")
    assert figures["distinct_1"] == 1


def test_the_scores_have_intervals_and_real_text_beside_them(writer: Writer, corpus: Corpus):
    scores = score_writer(writer, corpus, QUIET, characters=1500, resamples=3)
    assert list(scores) == list(LANGUAGE_MEASURES)
    assert all(score.low <= score.value <= score.high for score in scores.values())
    real = scores["known_words"]
    assert (real.floor or 0) > 0.95
    assert real.value < 0.5, "random weights write no words"
    assert scores["novel_4grams"].value > (scores["novel_4grams"].floor or 0)
    assert scores["longest_copy"].value < (scores["longest_copy"].floor or 0)
    assert {score.samples for name, score in scores.items() if name != "bits_per_character"} == {1500}
    again = score_writer(writer, corpus, QUIET, characters=1500, resamples=3)
    assert again == scores


def test_a_model_is_judged(exported: Model, corpus: Corpus):
    console = Console(file=io.StringIO(), width=140)
    judged = evaluate_model(exported, corpus, console, Draws(1000, 3))
    said = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "plays: 3 draws of 1,000 characters" in said
    assert "bits per character: 7-grams of characters, Kneser-Ney" in said
    protocol = LanguageProvenance.read(judged.manifest).evaluation
    assert protocol is not None
    assert (protocol.context_tokens, protocol.piece_tokens, protocol.characters) == (64, 63, 1000)
    assert protocol.test_tokens == len(Writer(exported).tokenizer.encode(corpus.test_text).ids)
    assert exported.manifest.scores == {}


def test_no_more_is_drawn_than_there_is_real_text(exported: Model, corpus: Corpus):
    judged = evaluate_model(exported, corpus, QUIET, Draws(None, 3))
    assert judged.manifest.scores["distinct_1"].samples == len(corpus.test_text)


def test_other_data_and_other_numbers_of_draws_are_refused(exported: Model, writer: Writer, corpus: Corpus):
    from dataclasses import replace

    with pytest.raises(DataError, match="give the folder that it was trained on"):
        evaluate_model(exported, replace(corpus, sha256="6" * 64), QUIET)
    with pytest.raises(ScoringError, match="resamples: expected a number from 2 to 10, got 1"):
        score_writer(writer, corpus, QUIET, 500, 1)


def test_the_bootstrap_is_narrow_for_windows_that_are_alike():
    from brigantine_training.language.evaluate.scores import bootstrap

    alike = bootstrap(np.full(50, 20.0), np.full(50, 10))
    assert alike == (2.0, 2.0)
    rng = np.random.default_rng(1)
    low, high = bootstrap(rng.normal(20, 5, 400), np.full(400, 10))
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)
