"""The exported model writes: the same for the same seed, and by its own odds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from brigantine.model import Model
from brigantine_training.errors import ScoringError
from brigantine_training.language.evaluate import Writer

from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def writer(exported: Model) -> Writer:
    return Writer(exported)


def test_it_knows_its_context_and_its_tokens(writer: Writer):
    assert (writer.context, writer.end_of_text) == (64, 0)
    assert writer.predict(np.array([[1, 2, 3]])).shape == (1, 3, 288)


def test_the_same_seed_writes_the_same_and_as_much_as_asked(writer: Writer):
    pieces = writer.write(3000, seed=4)
    assert pieces == writer.write(3000, seed=4)
    assert pieces != writer.write(3000, seed=5)
    assert sum(map(len, pieces)) == 3000
    assert writer.write(1000, seed=4) == [
        *pieces[: len(writer.write(1000, 4)) - 1],
        writer.write(1000, 4)[-1],
    ]


def test_tokens_are_drawn_by_their_odds(writer: Writer):
    """The first token of a piece, which follows the end of a text."""
    logits = writer.predict(np.array([[0]]))[0, 0].astype(np.float64)
    odds = np.exp(logits - logits.max())
    odds /= odds.sum()
    rng = np.random.default_rng(0)
    rows = [row for _ in range(12) for row in writer.draw_rows(rng)]
    drawn = Counter(row[0] for row in rows)
    assert len(rows) == 12 * 16
    best = int(odds.argmax())
    spread = (odds[best] * (1 - odds[best]) * len(rows)) ** 0.5
    assert abs(drawn[best] - odds[best] * len(rows)) < 4 * spread + 1


def test_a_piece_ends_with_the_end_of_the_text(writer: Writer):
    assert writer.text(np.array([80, 81, 0, 82])) == writer.tokenizer.decode([80, 81])
    assert writer.text(np.array([80, 81])) == writer.tokenizer.decode([80, 81])


def test_a_model_of_images_is_refused(tmp_path):
    tiny_model(tmp_path)
    with pytest.raises(ScoringError, match="expected a text model, with the output logits"):
        Writer(Model.open(tmp_path / "tiny"))
