"""A model: a folder with its graphs and a manifest that says what they are, and proves it.

`training` writes such a folder, `store` finds and publishes it, a plugin serves it. Nothing else is
handed from one to the other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ModelInvalid

__all__ = [
    "COMPANIONS",
    "GRAPH",
    "MANIFEST",
    "Arrays",
    "Label",
    "Manifest",
    "Model",
    "Score",
    "TensorSpec",
    "read_manifest",
    "sha256_of",
]

MANIFEST = "manifest.json"
GRAPH = "model.onnx"

COMPANIONS = frozenset({MANIFEST, "README.md", "samples.png", "model.yaml"})
"""What may lie in a model's folder without a sha256: the manifest itself, the card, and BentoML's own note."""

Arrays = Mapping[str, NDArray[Any]]
"""Named tensors: what a session takes and gives."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
DType = Literal["bool", "float16", "float32", "float64", "int8", "int32", "int64", "uint8"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Frozen):
    """One input or output of the graph. A string in `shape` is a dynamic dimension; the first is the batch."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


class Label(_Frozen):
    """One class that the model can be asked for, by its place in the list or by any of its names."""

    name: str
    aliases: tuple[str, ...] = ()


class Score(_Frozen):
    """One quality score: the mean over resamples, its 95% interval, and what real data scores."""

    value: float
    low: float
    high: float
    floor: float | None
    samples: int


class Manifest(_Frozen):
    """`manifest.json`: everything that is known about a model."""

    format: Literal[1] = 1
    name: Slug
    plugin: Slug
    description: str = ""
    licence: str = ""
    created: datetime | None = None
    files: dict[str, str] = Field(min_length=1)
    """Each file of the model with the sha256 of its bytes."""
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    labels: tuple[Label, ...] = ()
    max_batch: int = Field(default=64, ge=1, le=4096)
    """The largest batch, in rows, that the graph is run with."""
    scores: dict[str, Score] = {}
    parity: dict[str, float] = {}
    """Batch size -> largest absolute difference between PyTorch and ONNX Runtime, in output units."""
    training: dict[str, Any] = {}
    """How it was made: command, config, commit, data checksum, seconds, images."""


class Model(NamedTuple):
    """A verified model folder. Make one with `Model.open`."""

    path: Path
    manifest: Manifest
    source: str
    """Where it was found: a folder, BentoML's model store, or a plugin's package."""

    @classmethod
    def open(cls, path: Path, source: str = "folder") -> Model:
        """Read the manifest at `path` and check every file against its sha256.

        Raises:
            ModelInvalid: the manifest is missing or wrong, or a file is missing, altered, outside the folder, or not to
                be read.
        """
        try:
            manifest = read_manifest(path)
            for name, expected in manifest.files.items():
                _check_file(path, name, expected)
        except PermissionError as error:
            raise ModelInvalid(
                f"{error.filename}: expected a file that user {os.geteuid()} may read, got {error.strerror!r}; "
                f"chmod -R a+rX {path}"
            ) from None
        _check_complete(path, manifest)
        return cls(path, manifest, source)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def digest(self) -> str:
        """What makes two models the same: a sha256 over the plugin, the labels and every file's sha256."""
        return _digest(self.manifest)

    @property
    def graph(self) -> Path:
        """The path of `model.onnx`."""
        return self.path / GRAPH


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return _sha256(file.read())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(manifest: Manifest) -> str:
    identity = manifest.model_dump(mode="json", include={"plugin", "files", "inputs", "outputs", "labels"})
    return _sha256(json.dumps(identity, sort_keys=True).encode())


def read_manifest(path: Path) -> Manifest:
    """The manifest of the model folder `path`; no file is checked against it.

    Raises:
        ModelInvalid: there is none, or it is wrong.
    """
    file = path / MANIFEST
    if not path.exists():
        raise ModelInvalid(f"{path}: expected a model's folder, found nothing of this name")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ModelInvalid(f"{path} is no model: expected a {MANIFEST} in it, found none") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelInvalid(f"{file}: {faults}") from None


def _check_complete(path: Path, manifest: Manifest) -> None:
    """Everything that could be run or read by the graph must have a sha256."""
    if GRAPH not in manifest.files:
        raise ModelInvalid(
            f"{path / MANIFEST}: files: expected {GRAPH} among them, got {', '.join(manifest.files)}"
        )
    there = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    if strangers := sorted(there - set(manifest.files) - COMPANIONS):
        raise ModelInvalid(
            f"{path}: {', '.join(strangers)}: not in the {MANIFEST}; remove it, or publish the model again"
        )


def _check_file(path: Path, name: str, expected: str) -> None:
    file = path / name
    if not file.resolve().is_relative_to(path.resolve()):
        raise ModelInvalid(f"{path / MANIFEST}: files.{name}: expected a path inside the model's folder")
    if not file.is_file():
        raise ModelInvalid(f"{file}: named in {MANIFEST}, but missing; publish the model again")
    if (got := sha256_of(file)) != expected:
        raise ModelInvalid(
            f"{file}: expected sha256 {expected[:12]}..., got {got[:12]}...: the file was altered "
            f"or damaged after it was published; restore it, or publish the model again"
        )
