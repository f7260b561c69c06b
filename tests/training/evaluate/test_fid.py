"""The Frechet distance, held to the closed form and to torchmetrics."""

import pytest
import torch
from brigantine_training import torchvision_guard  # noqa: F401 - torchmetrics imports torchvision
from brigantine_training.evaluate.fid import Moments, frechet_distance
from torch import Tensor, nn


def _features(seed: int, count: int = 300, size: int = 16) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(size, size, generator=random)
    return (torch.randn(count, size, generator=random) @ mixed + torch.randn(size, generator=random)).relu()


class _AsTheyAre(nn.Module):
    """A feature network for torchmetrics whose images are features already."""

    num_features = 16

    def forward(self, features: Tensor) -> Tensor:
        return features


def test_it_agrees_with_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, generated = _features(0), _features(1)
    theirs = FrechetInceptionDistance(feature=_AsTheyAre()).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(generated, real=False)
    ours = frechet_distance(Moments.of(real), Moments.of(generated))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-4)


def test_it_has_the_closed_form_of_gaussians_on_one_line():
    a = Moments(torch.tensor([1.0]).double(), torch.tensor([[4.0]]).double())
    b = Moments(torch.tensor([4.0]).double(), torch.tensor([[25.0]]).double())
    assert frechet_distance(a, b) == pytest.approx((4 - 1) ** 2 + (5 - 2) ** 2)


def test_it_is_symmetric_and_zero_for_the_same():
    a, b = Moments.of(_features(0)), Moments.of(_features(1))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_a_dead_feature_does_not_break_it():
    real, generated = _features(0), _features(1)
    real[:, 3] = generated[:, 3] = 0
    without = [Moments.of(torch.cat([f[:, :3], f[:, 4:]], dim=1)) for f in (real, generated)]
    assert frechet_distance(Moments.of(real), Moments.of(generated)) == pytest.approx(
        frechet_distance(*without), rel=1e-6
    )
