"""The losses against versions written out the long way."""

import torch
from brigantine_training.losses import NonSaturating, Relativistic, build_loss
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

GAMMA = 0.3


class Quadratic(torch.nn.Module):
    """A judge with a known gradient: a . x + b * |x|^2, plus the label."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.linspace(-1, 1, 16))
        self.bend = torch.nn.Parameter(torch.tensor(0.25))

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        flat = images.flatten(1)
        return flat @ self.slope + self.bend * flat.square().sum(1) + label

    def gradient(self, images: Tensor) -> Tensor:
        return self.slope + 2 * self.bend * images.flatten(1)


def _batch() -> tuple[Quadratic, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 6, 1, 4, 4, generator=random)
    return Quadratic(), real, fake, torch.arange(6)


def test_relativistic_discriminator_loss_and_its_gradient():
    judge, real, fake, label = _batch()
    total, penalty = Relativistic().discriminator(judge, real, fake, label, GAMMA)
    slopes = torch.autograd.grad(total, list(judge.parameters()))

    by_hand = sum(judge.gradient(images).square().sum(1).mean() for images in (real, fake))
    naive = -torch.log(torch.sigmoid(judge(real, label) - judge(fake, label))).mean() + GAMMA / 2 * by_hand
    assert torch.allclose(penalty, torch.as_tensor(by_hand))
    assert torch.allclose(total, naive)
    for got, expected in zip(slopes, torch.autograd.grad(naive, list(judge.parameters())), strict=True):
        assert torch.allclose(got, expected, atol=1e-5)


def test_relativistic_generator_loss_only_moves_the_fakes():
    judge, real, fake, label = _batch()
    real.requires_grad_()
    fake.requires_grad_()
    loss = Relativistic().generator(judge, real, fake, label)
    naive = -torch.log(torch.sigmoid(judge(fake, label) - judge(real, label))).mean()
    assert torch.allclose(loss, naive)
    loss.backward()
    assert real.grad is None
    assert fake.grad is not None


def test_non_saturating_losses_are_cross_entropy():
    judge, real, fake, label = _batch()
    one, zero = torch.ones(6), torch.zeros(6)
    total, penalty = NonSaturating().discriminator(judge, real, fake, label, GAMMA)
    expected = binary_cross_entropy_with_logits(judge(real, label), one)
    expected = expected + binary_cross_entropy_with_logits(judge(fake, label), zero)
    assert torch.allclose(total, expected)
    assert penalty == 0
    drawn = NonSaturating().generator(judge, real, fake, label)
    assert torch.allclose(drawn, binary_cross_entropy_with_logits(judge(fake, label), one))


def test_losses_by_name():
    assert isinstance(build_loss("relativistic"), Relativistic)
    assert isinstance(build_loss("non-saturating"), NonSaturating)
