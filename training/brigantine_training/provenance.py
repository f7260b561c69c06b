"""Provenance: how a model came about and how it was judged, as `training` in its manifest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from brigantine.model import Manifest
from pydantic import BaseModel, ConfigDict, ValidationError

from .config import Config
from .data import Dataset
from .errors import ScoringError
from .run import RunRecord

__all__ = ["Protocol", "Provenance", "TrainingData"]


class TrainingData(BaseModel):
    """The real images that a model was trained on."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    """Of the raw files."""
    licence: str
    source: str
    images: int


class Protocol(BaseModel):
    """How the scores were made; scores of another protocol do not compare."""

    model_config = ConfigDict(frozen=True)

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


class Provenance(BaseModel):
    """Everything that the model card says and the graph does not."""

    model_config = ConfigDict(frozen=True)

    command: str
    commit: str
    seconds: float
    steps: int
    images_seen: int
    seed: int
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    parameters_generator: int
    parameters_discriminator: int
    config: dict[str, Any]
    data: TrainingData
    evaluation: Protocol | None = None

    @classmethod
    def of(cls, record: RunRecord, config: Config, dataset: Dataset) -> Provenance:
        """Of a run's generator, not judged yet."""
        data = TrainingData(
            name=dataset.name,
            sha256=dataset.sha256,
            licence=dataset.licence,
            source=dataset.source,
            images=len(dataset.train_images),
        )
        # The fields of the record are this class's own, but for the data set's, which `data` holds.
        return cls.model_validate({**asdict(record), "config": config.model_dump(mode="json"), "data": data})

    @classmethod
    def read(cls, manifest: Manifest) -> Provenance:
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
