"""Provenance: how a model came about and how it was judged, as `training` in its manifest."""

from __future__ import annotations

from typing import Any, TypeVar

from brigantine.model import Manifest
from pydantic import BaseModel, ValidationError

from .config import Config
from .data import Data
from .errors import ScoringError
from .run import RunRecord

__all__ = ["GanProvenance", "ImageData", "Protocol", "Provenance", "TrainingData"]

P = TypeVar("P", bound="Provenance")


class TrainingData(BaseModel, frozen=True):
    """What a model was trained on."""

    name: str
    sha256: str
    """Of the raw files."""
    licence: str
    source: str


class ImageData(TrainingData, frozen=True):
    """The real images that a GAN was trained on."""

    images: int


class Protocol(BaseModel, frozen=True):
    """How the scores of images were made; scores of another protocol do not compare."""

    samples: int
    """Images of one draw, and real images of a floor."""
    resamples: int
    fid_reference: int
    """Training images, here and in the next two."""
    prdc_reference: int
    memorisation_reference: int
    neighbours: int
    """k of precision, recall, density and coverage."""
    classifier: str
    """The key of its recipe and data."""
    classifier_accuracy: float
    """On the real images of the floors, 0..1."""


class Provenance(BaseModel, frozen=True):
    """How a model came about: what its card says and its graph does not."""

    command: str
    commit: str
    seconds: float
    steps: int
    seed: int
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    config: dict[str, Any]
    data: TrainingData

    @classmethod
    def of(cls: type[P], record: RunRecord, config: Config, data: Data, **sizes: int) -> P:
        """Of a run's network, not judged yet; `sizes`: what `data` holds, in the words of its kind."""
        known = {"name": data.name, "sha256": data.sha256, "licence": data.licence, "source": data.source}
        # The fields of the record are this class's own, but for the data's.
        return cls.model_validate({
            **record.values(), "config": config.model_dump(mode="json"), "data": {**known, **sizes}
        })  # fmt: skip

    @classmethod
    def read(cls: type[P], manifest: Manifest) -> P:
        """Out of a model's manifest.

        Raises:
            ScoringError: the model does not say how it was trained.
        """
        try:
            return cls.model_validate(manifest.training)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
            raise ScoringError(
                f"model {manifest.name}: its manifest's `training` does not say how it was trained (missing or wrong: "
                f"{fields}). Judge a model that `brigantine-train export` wrote."
            ) from None


class GanProvenance(Provenance, frozen=True):
    """How a GAN came about."""

    images_seen: int
    parameters_generator: int
    parameters_discriminator: int
    data: ImageData
    evaluation: Protocol | None = None
