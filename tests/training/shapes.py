"""A data set that is learned in a second: three shapes of 8 x 8, each with its own brightness and grain."""

from __future__ import annotations

import torch
from brigantine_training.data import Dataset
from brigantine_training.evaluate import Recipe
from torch import Tensor

QUICK = Recipe(epochs=4, batch=50)
NAMES = ("0 - square", "1 - cross", "2 - stripes")


def draw_shapes(labels: Tensor, seed: int) -> Tensor:
    """Labels int64 [N] to images uint8 [N, 1, 8, 8]: a perfect generator."""
    random = torch.Generator().manual_seed(seed)
    shapes = torch.zeros(3, 8, 8)
    shapes[0, 1:7, 1:7] = 1
    shapes[1, 3:5, :] = shapes[1, :, 3:5] = 1
    shapes[2, ::3, :] = 1
    light = 120 + 100 * torch.rand(len(labels), 1, 1, generator=random)
    grain = 12 * torch.randn(len(labels), 8, 8, generator=random)
    return (shapes[labels] * light + grain).clamp(0, 255).to(torch.uint8)[:, None]


def shapes_dataset(train: int = 600, test: int = 200) -> Dataset:
    """Shapes with labels, as many of each."""
    labels = torch.arange(train) % 3, torch.arange(test) % 3
    return Dataset(
        name="mnist",
        train_images=draw_shapes(labels[0], 1000),
        train_labels=labels[0],
        test_images=draw_shapes(labels[1], 2000),
        test_labels=labels[1],
        labels=NAMES,
        sha256="5" * 64,
        licence="CC0",
        source="drawn by the tests",
    )
