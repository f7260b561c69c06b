"""What the two networks are trained to do."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

Judge = Callable[[Tensor, Tensor], Tensor]
"""The discriminator as a loss sees it: (images [N, C, H, W] f32, label [N]) -> logits [N] f32."""


class DiscriminatorLoss(NamedTuple):
    """`total` is minimised; `penalty`, R1 + R2 before its weight, is for the log and the watchdog."""

    total: Tensor  # [] f32
    penalty: Tensor  # [] f32


class Loss(Protocol):
    """A pair of losses. Real and fake images come in pairs of one label: [N, C, H, W] each, label [N]."""

    def discriminator(
        self, judge: Judge, real: Tensor, fake: Tensor, label: Tensor, gamma: float
    ) -> DiscriminatorLoss: ...

    def generator(self, judge: Judge, real: Tensor, fake: Tensor, label: Tensor) -> Tensor: ...


class Relativistic:
    """Relativistic pairing loss with R1 and R2 (R3GAN, arXiv 2501.05441): converges locally, covers the modes."""

    def discriminator(
        self, judge: Judge, real: Tensor, fake: Tensor, label: Tensor, gamma: float
    ) -> DiscriminatorLoss:
        """softplus of (fake - real) + gamma/2 * (|grad at real|^2 + |grad at fake|^2), means over the batch."""
        # One call and one second-order gradient for both halves cost less than two of each.
        images = torch.cat([real, fake]).requires_grad_()  # [2N, C, H, W]
        logits = judge(images, torch.cat([label, label]))  # [2N]
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)  # [2N, C, H, W]
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean() * 2  # [] = mean R1 + mean R2
        real_logits, fake_logits = logits.chunk(2)
        return DiscriminatorLoss(
            softplus(fake_logits - real_logits).mean() + gamma / 2 * penalty, penalty.detach()
        )

    def generator(self, judge: Judge, real: Tensor, fake: Tensor, label: Tensor) -> Tensor:
        """softplus of (real - fake), mean over the batch: []"""
        with torch.no_grad():
            real_logits = judge(real, label)
        return softplus(real_logits - judge(fake, label)).mean()


class NonSaturating:
    """Binary cross-entropy with the non-saturating generator (Goodfellow et al. 2014, arXiv 1406.2661)."""

    def discriminator(
        self,
        judge: Judge,
        real: Tensor,
        fake: Tensor,
        label: Tensor,
        gamma: float,
    ) -> DiscriminatorLoss:
        """-log D(real) - log(1 - D(fake)), means over the batch; two calls, so that batch norm sees them apart."""
        total = softplus(-judge(real, label)).mean() + softplus(judge(fake, label)).mean()
        return DiscriminatorLoss(total, torch.zeros_like(total))

    def generator(
        self,
        judge: Judge,
        real: Tensor,
        fake: Tensor,
        label: Tensor,
    ) -> Tensor:
        """-log D(fake), mean over the batch: []"""
        return softplus(-judge(fake, label)).mean()


def build_loss(name: str) -> Loss:
    """The loss that a configuration names."""
    return {"relativistic": Relativistic, "non-saturating": NonSaturating}[name]()
