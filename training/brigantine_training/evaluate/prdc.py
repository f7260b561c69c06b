"""Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991), density and coverage (Naeem et al.
2020, arXiv:2002.09797): is what is drawn like the real, and is everything real drawn?"""

# Our own lines and not the `prdc` package: it needs scikit-learn and three full pairwise matrices in
# memory, and works out the real set's radii again for each call. The tests hold it to that package's figures.

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["NEIGHBOURS", "Manifold", "Prdc", "prdc"]

NEIGHBOURS = 5
"""k of the k-nearest-neighbour balls: what Naeem et al. recommend."""

_CHUNK = 1000
"""Rows of a distance matrix in memory at once: 1000 x 10,000 float32 is 40 MB."""


class Manifold(NamedTuple):
    """A set of features, each the centre of a ball that reaches to its k-th nearest neighbour."""

    points: Tensor
    """float32 [N, D]"""
    radii: Tensor
    """float32 [N], feature units"""

    @classmethod
    def of(cls, features: Tensor, neighbours: int = NEIGHBOURS) -> Manifold:
        """The balls around features [N, D], N > neighbours."""
        # The nearest point of each is itself, at distance 0, so the k-th neighbour is the (k+1)-th nearest.
        nearest = [
            torch.cdist(rows, features).topk(neighbours + 1, largest=False).values for rows in _rows(features)
        ]
        return cls(features, torch.cat(nearest)[:, neighbours])


class Prdc(NamedTuple):
    """Four shares between 0 and 1, except density, which may exceed 1."""

    precision: float
    """Share of the generated that lie in some real ball."""
    recall: float
    """Share of the real that lie in some generated ball."""
    density: float
    """Mean number of real balls around a generated point, over k."""
    coverage: float
    """Share of the real balls that hold a generated point."""


def prdc(real: Manifold, generated: Manifold, neighbours: int = NEIGHBOURS) -> Prdc:
    """Compare generated features with real ones; both manifolds built with the same `neighbours`."""
    around: list[Tensor] = []  # per generated point: how many real balls hold it
    recalled = torch.zeros(len(real.points), dtype=torch.bool)  # [N_real]
    nearest = torch.full((len(real.points),), torch.inf)  # [N_real], distance to the nearest generated
    for rows, radii in zip(_rows(generated.points), generated.radii.split(_CHUNK), strict=True):
        distances = torch.cdist(rows, real.points)  # [chunk, N_real]
        around.append((distances < real.radii).sum(1))
        recalled |= (distances < radii[:, None]).any(0)
        nearest = torch.minimum(nearest, distances.amin(0))
    held = torch.cat(around)  # [N_generated]
    return Prdc(
        precision=float((held > 0).float().mean()),
        recall=float(recalled.float().mean()),
        density=float(held.float().mean()) / neighbours,
        coverage=float((nearest < real.radii).float().mean()),
    )


def _rows(features: Tensor) -> tuple[Tensor, ...]:
    return features.split(_CHUNK)
