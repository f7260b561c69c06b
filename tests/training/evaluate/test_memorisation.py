"""Memorisation: nearest neighbours in pixels, and the area under the curve."""

import pytest
import torch
from brigantine_training.evaluate import memorisation
from brigantine_training.evaluate.memorisation import memorisation_auc, nearest_distances
from torch import Tensor


def _images(seed: int, count: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 6, 6), generator=random, dtype=torch.uint8)


def test_distances_are_those_of_the_nearest_in_any_chunk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memorisation, "_QUERIES", 7)
    monkeypatch.setattr(memorisation, "_REFERENCES", 11)
    images, training = _images(0, 30), _images(1, 40)
    flat, reference = (part.flatten(1).double() / 255 for part in (images, training))
    expected = torch.cdist(flat, reference).amin(1)
    assert nearest_distances(images, training).double() == pytest.approx(expected, abs=1e-4)


def test_a_copy_is_no_distance_away():
    training = _images(1, 40)
    assert nearest_distances(training[5:9], training).max() < 0.01


def test_the_auc_counts_pairs_and_half_of_the_ties():
    held_out, generated = torch.tensor([1.0, 2.0, 2.0, 5.0]), torch.tensor([2.0, 3.0, 0.5])
    pairs = [(h > g) + 0.5 * (h == g) for h in held_out.tolist() for g in generated.tolist()]
    assert memorisation_auc(held_out, generated) == pytest.approx(sum(pairs) / len(pairs))


def test_the_auc_of_copies_of_equals_and_of_strangers():
    held_out = torch.rand(100) + 1
    assert memorisation_auc(held_out, torch.zeros(50)) == 1.0
    assert memorisation_auc(held_out, held_out) == 0.5
    assert memorisation_auc(held_out, held_out + 10) == 0.0
