"""The evaluation CNN."""

import pytest
import torch
from brigantine_training.networks.classifier import Classifier


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32), (1, 7, 10), (1, 4, 4)])
def test_it_takes_images_of_any_size(image_shape: tuple[int, int, int]):
    network = Classifier(image_shape, classes=5, width=4, features=6).eval()
    images = torch.rand(2, *image_shape) * 2 - 1
    features = network.features(images)
    assert features.shape == (2, 6)
    assert features.min() >= 0
    assert torch.equal(network(images), network.head(features))
    assert network(images).shape == (2, 5)


def test_it_is_small():
    assert sum(p.numel() for p in Classifier((1, 28, 28), 10).parameters()) < 500_000
