"""Frechet distance between two sets of features (Heusel et al. 2017, arXiv:1706.08500)."""

# Our own lines and not torchmetrics': that one wants images and a network where we have features that
# several scores share, and importing it imports torchvision and torch-fidelity. The tests hold it to
# torchmetrics' figure.

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moments", "frechet_distance"]


class Moments(NamedTuple):
    """The Gaussian that stands for a set of features."""

    mean: Tensor
    """float64 [D]"""
    covariance: Tensor
    """float64 [D, D]"""

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Mean and unbiased covariance of features [N, D], N >= 2."""
        features = features.double()  # the small differences of large covariances are what is measured
        return cls(features.mean(0), features.T.cov())


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Frechet distance of two Gaussians, in squared feature units; 0 when they are the same.

    FID = |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)

    The symmetric form of the product: its eigenvalues are real and not negative, where those of AB
    come out complex as soon as a covariance is nearly singular.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T  # [D, D], A^1/2
    product = torch.linalg.eigvalsh(root @ b.covariance @ root)  # [D]
    shared = product.clamp_min(0).sqrt().sum()
    shift = (a.mean - b.mean).square().sum()
    return float(shift + a.covariance.trace() + b.covariance.trace() - 2 * shared)
