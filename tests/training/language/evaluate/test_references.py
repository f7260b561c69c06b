"""The models that others are measured by: they are probabilities, and hand-counted ones come out."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from brigantine_training.language.evaluate.references import KneserNey, reference_bits

from tests.training.language.plays import written

TEXT = written(60, seed=1)


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("before", ["", "t", "the ", "語zq"])
def test_the_characters_and_what_is_unknown_add_up_to_one(order: int, before: str):
    model = KneserNey(TEXT, order)
    total = sum(model.probability(before, character) for character in {*TEXT, "語"})
    assert total == pytest.approx(1)


def test_one_character_goes_by_its_frequency():
    model = KneserNey("aaab", 1)
    # Discounted by 0.9 each, which two kinds leave, and spread over two characters and the unknown.
    assert model.probability("b", "a") == pytest.approx((3 - 0.9) / 4 + 0.9 * 2 / 4 / 3)


def test_the_shorter_sequence_counts_what_it_follows():
    """In "abababcb" b follows a and c, a follows b, c follows b: b is two of the four ways to go on."""
    model = KneserNey("abababcb", 2)
    unigram = (2 - 0.9) / 4 + 0.9 * 3 / 4 / 4
    assert model.probability("", "b") == pytest.approx(unigram)
    assert model.probability("a", "b") == pytest.approx((3 - 0.9) / 3 + 0.9 * 1 / 3 * unigram)


def test_longer_sequences_need_fewer_bits():
    train, test = written(400, seed=1), written(60, seed=2)
    figures = reference_bits(train, test)
    alone, seven, xz = figures.values()
    counts = Counter(test)
    entropy = -sum(count / len(test) * math.log2(count / len(test)) for count in counts.values())
    assert alone == pytest.approx(entropy, rel=0.05)
    assert seven < xz < alone
