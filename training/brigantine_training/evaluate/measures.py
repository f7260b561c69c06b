"""The seven figures that a generator is judged by: what each means, and which way is better."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MEASURES", "Measure"]


class Measure(NamedTuple):
    """How to read one figure."""

    title: str
    better: str
    """The direction or the value to wish for."""
    meaning: str
    paper: str
    highest: float = 1.0
    """The largest value that there can be; the least is 0 for all of them."""


MEASURES: dict[str, Measure] = {
    "fid": Measure(
        "FID",
        "lower",
        "Fréchet distance to the training set in the evaluation classifier's features. Not comparable with FID "
        "in Inception features: read it against the floor",
        "Heusel 2017, arXiv:1706.08500",
        highest=float("inf"),
    ),
    "accuracy": Measure(
        "class accuracy", "higher", "share of images in which the classifier reads the label asked for", ""
    ),
    "precision": Measure(
        "precision",
        "higher",
        "share of generated images that lie among real ones",
        "Kynkäänniemi 2019, arXiv:1904.06991",
    ),
    "recall": Measure(
        "recall",
        "higher",
        "share of real images that lie among generated ones",
        "Kynkäänniemi 2019, arXiv:1904.06991",
    ),
    "density": Measure(
        "density",
        "higher",
        "how densely real images surround the generated ones; may exceed 1",
        "Naeem 2020, arXiv:2002.09797",
        highest=float("inf"),
    ),
    "coverage": Measure(
        "coverage",
        "higher",
        "share of real neighbourhoods that hold a generated image",
        "Naeem 2020, arXiv:2002.09797",
    ),
    "memorisation_auc": Measure(
        "memorisation AUC",
        "0.5",
        "P(an unseen real image is farther from its nearest training image than a generated one is), in pixels; "
        "1.0 means copies",
        "after Meehan 2020, arXiv:2004.05675",
    ),
}
"""By the name that the score has in the manifest, in the order of a report."""
