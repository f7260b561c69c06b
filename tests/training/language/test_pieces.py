"""The training text in tokens: the usual spelling is the tokenizer's, the others are other ways to write the same."""

from __future__ import annotations

import numpy as np
import pytest
from brigantine_training.language.pieces import Pieces
from brigantine_training.language.tokenizer import train_tokenizer

from tests.training.language.plays import written

TEXT = written(100, seed=1)
TOKENIZER = train_tokenizer(TEXT, 400)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_usual_spelling_is_the_tokenizers(dropout: float):
    pieces = Pieces(TOKENIZER, TEXT, dropout, seed=0)
    assert pieces.encode(0.0, _rng()).tolist() == TOKENIZER.encode(TEXT).ids


def test_another_spelling_is_longer_and_says_the_same():
    pieces = Pieces(TOKENIZER, TEXT, 0.3, seed=0)
    usual, half, all_of_it = (pieces.encode(share, _rng()) for share in (0.0, 0.5, 1.0))
    assert len(usual) < len(half) < len(all_of_it)
    for tokens in (half, all_of_it):
        assert TOKENIZER.decode(tokens.tolist()) == TEXT


def test_each_epoch_is_spelt_in_its_own_way_that_the_seeds_decide():
    pieces = Pieces(TOKENIZER, TEXT, 0.3, seed=0)
    one = pieces.encode(1.0, _rng(0)).tolist()
    assert one == pieces.encode(1.0, _rng(0)).tolist()
    assert one == Pieces(TOKENIZER, TEXT, 0.3, seed=0).encode(1.0, _rng(0)).tolist()
    assert one != pieces.encode(1.0, _rng(1)).tolist()
    assert one != Pieces(TOKENIZER, TEXT, 0.3, seed=1).encode(1.0, _rng(0)).tolist()


def test_without_dropout_there_is_one_spelling():
    pieces = Pieces(TOKENIZER, TEXT, 0.0, seed=0)
    assert pieces.encode(1.0, _rng()).tolist() == TOKENIZER.encode(TEXT).ids
