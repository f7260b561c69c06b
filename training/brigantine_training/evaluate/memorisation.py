"""Memorisation: do generated images lie closer to the training images than unseen real ones do?

The one-sided two-sample test of Meehan et al. 2020 (arXiv:2004.05675), read as an area under the curve.
Pixels and not features: a copy is a copy of pixels, and no network has to be believed.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["memorisation_auc", "nearest_distances"]

_QUERIES = 500
_REFERENCES = 20_000
"""Rows and columns of a distance matrix in memory at once: 500 x 20,000 float32 is 40 MB."""


def nearest_distances(images: Tensor, training: Tensor) -> Tensor:
    """The distance of each image to its nearest training image.

    Args:
        images: uint8 [N, C, H, W].
        training: uint8 [M, C, H, W].

    Returns:
        float32 [N]: Euclidean, pixels in 0..1.
    """
    queries = _flat(images)  # [N, P]
    best = torch.full((len(queries),), torch.inf)  # [N], squared
    for references in map(_flat, training.split(_REFERENCES)):  # [m, P]
        norms = references.square().sum(1)  # [m]
        for start in range(0, len(queries), _QUERIES):
            rows = queries[start : start + _QUERIES]
            # |q - r|^2 = |q|^2 + |r|^2 - 2qr: one matrix product, an order faster than differences
            squared = torch.addmm(norms, rows, references.T, alpha=-2).amin(1) + rows.square().sum(1)
            best[start : start + len(rows)] = torch.minimum(best[start : start + len(rows)], squared)
    return best.clamp_min(0).sqrt()


def memorisation_auc(held_out: Tensor, generated: Tensor) -> float:
    """P(held-out distance > generated distance), ties counting half.

    0.5: generated images are as far from the training set as unseen real ones. 1.0: copies. Towards
    0: farther away than real images are, as blurred or broken ones may be.

    Args:
        held_out: [N], `nearest_distances` of real images that were not trained on.
        generated: [M], `nearest_distances` of generated images.
    """
    ordered = generated.sort().values
    below = torch.searchsorted(ordered, held_out)  # [N], generated strictly nearer
    up_to = torch.searchsorted(ordered, held_out, right=True)
    return float((below + up_to).double().mean() / 2 / len(generated))


def _flat(images: Tensor) -> Tensor:
    return images.flatten(1).float() / 255  # [N, P], 0..1
