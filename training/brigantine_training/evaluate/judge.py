"""Judge: what the images of a generator are held against, worked out once for each data set and kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from ..data import Dataset
from ..networks.classifier import Classifier
from .cache import kept
from .features import Recipe, classifier_of, features_of
from .fid import Moments, frechet_distance
from .measures import MEASURES
from .memorisation import memorisation_auc, nearest_distances
from .prdc import Manifold, prdc

__all__ = ["SAMPLES", "Judge", "Reference", "open_judge"]

SAMPLES = 10_000
"""Images of one measurement. Every figure depends on it (FID falls with more), so it is stated with each."""

_VERSION = 1
"""Raise it when a measure changes: references kept by an older version are then left alone."""

_SEED = 0


class Reference(NamedTuple):
    """The real images, as the measures need them."""

    mean: Tensor
    """float64 [D], of the features of all training images"""
    covariance: Tensor
    """float64 [D, D], likewise"""
    points: Tensor
    """float32 [samples, D]: features of as many training images, drawn once"""
    radii: Tensor
    """float32 [samples]: how far the ball of each point reaches"""
    held_out: Tensor
    """float32 [samples]: distances of unseen real images to their nearest training image"""


@dataclass(frozen=True)
class Judge:
    """A data set's classifier, its reference, and what unseen real images score."""

    dataset: Dataset
    recipe: Recipe
    classifier: Classifier
    reference: Reference
    floors: dict[str, float]
    """The figures of `samples` unseen real images: as good as a generator can be expected to get."""

    @property
    def samples(self) -> int:
        """Images of one measurement."""
        return len(self.reference.held_out)

    def measure(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """All figures of images uint8 [samples, C, H, W] that should show labels int64 [samples]."""
        distances = nearest_distances(images, self.dataset.train_images)
        return _measure(self.classifier, self.reference, images, labels, distances)


def open_judge(
    dataset: Dataset, console: Console, samples: int = SAMPLES, recipe: Recipe | None = None
) -> Judge:
    """The judge of a data set: from the cache, or made now (some three minutes on two cores).

    Args:
        dataset: its test images are the unseen real ones.
        console: where progress is shown.
        samples: images of one measurement; cut to the number of test images, because scores and
            floors compare only at the same number.
        recipe: of the classifier; the default one when None.
    """
    recipe = recipe or Recipe()
    samples = min(samples, len(dataset.test_images), len(dataset.train_images))
    classifier = classifier_of(dataset, recipe, console)
    file = f"reference-{recipe.key(dataset)}-{_fingerprint(classifier)}-{samples}-v{_VERSION}.pt"
    tensors = kept(file, lambda: _measure_real(dataset, classifier, samples, console))
    floors = dict(zip(MEASURES, tensors.pop("floors").tolist(), strict=True))
    return Judge(dataset, recipe, classifier, Reference(**tensors), floors)


def _fingerprint(classifier: Classifier) -> str:
    """Tells two classifiers of one recipe apart: a reference belongs to the weights it was measured with."""
    weights = torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()])
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:8]


def _measure_real(
    dataset: Dataset, classifier: Classifier, samples: int, console: Console
) -> dict[str, Tensor]:
    """The fields of a Reference, and `floors` float64 [measures] in the order of MEASURES."""
    rng = torch.Generator().manual_seed(_SEED)
    unseen = torch.randperm(len(dataset.test_images), generator=rng)[:samples]
    chosen = torch.randperm(len(dataset.train_images), generator=rng)[:samples]
    with console.status(f"measuring the real images of {dataset.name} (once)"):
        features = features_of(classifier, dataset.train_images)  # [N, D]
        images = dataset.test_images[unseen]
        reference = Reference(
            *Moments.of(features),
            *Manifold.of(features[chosen]),
            held_out=nearest_distances(images, dataset.train_images),
        )
        # Held-out images against themselves: the AUC's floor is its ideal, 0.5, by definition.
        labels = dataset.test_labels[unseen]
        floors = _measure(classifier, reference, images, labels, reference.held_out)
    return {**reference._asdict(), "floors": torch.tensor([floors[name] for name in MEASURES]).double()}


def _measure(
    classifier: Classifier, reference: Reference, images: Tensor, labels: Tensor, distances: Tensor
) -> dict[str, float]:
    features = features_of(classifier, images)  # [samples, D]
    with torch.inference_mode():
        read = classifier.head(features).argmax(1)  # [samples]
    real = Manifold(reference.points, reference.radii)
    return {
        "fid": frechet_distance(Moments(reference.mean, reference.covariance), Moments.of(features)),
        "accuracy": float((read == labels).float().mean()),
        **prdc(real, Manifold.of(features))._asdict(),
        "memorisation_auc": memorisation_auc(reference.held_out, distances),
    }
