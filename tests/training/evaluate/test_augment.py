"""What the classifier is taught to overlook."""

import torch
from brigantine_training.evaluate.augment import _shifted, augmented
from torch import Tensor


def _augmented(images: Tensor, seed: int = 0) -> Tensor:
    return augmented(images, torch.Generator().manual_seed(seed))


def test_shape_range_and_repetition():
    images = torch.rand(40, 3, 9, 7)
    once = _augmented(images)
    assert once.shape == images.shape
    assert once.min() >= 0
    assert once.max() <= 1
    assert torch.equal(once, _augmented(images))
    assert not torch.equal(once, _augmented(images, seed=1))


def test_black_is_not_always_black():
    black = torch.zeros(400, 1, 8, 8)
    medians = _augmented(black).flatten(1).median(1).values
    assert (medians < 0.01).float().mean() > 0.4
    assert (medians > 0.07).float().mean() > 0.1


def test_a_dot_moves_two_pixels_at_most():
    dot = torch.zeros(300, 1, 11, 11)
    dot[:, :, 5, 5] = 1
    places = _shifted(dot, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
    rows, columns = places // 11 - 5, places % 11 - 5
    assert set(rows.tolist()) == set(columns.tolist()) == set(range(-2, 3))
