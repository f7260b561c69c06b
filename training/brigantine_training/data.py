"""Data sets: real data from a folder that the user gives, with the checksum of what was read; and their order."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import DataError
from .torchvision_guard import datasets


class Data:
    """What is known of any data that a model is trained on."""

    name: str
    sha256: str
    """Of the raw files, one after the other in the order of their names."""
    licence: str
    source: str

    def check_is(self, sha256: str, trained: str) -> None:
        """A run is resumed, exported and judged with the data that it was trained on.

        Raises:
            DataError: `sha256`, of the data that `trained` was trained on, is not this data's.
        """
        if self.sha256 != sha256:
            raise DataError(
                f"{trained}: trained on data with sha256 {sha256[:12]}..., and --data-dir holds {self.name} with "
                f"{self.sha256[:12]}...: give the folder that it was trained on."
            )


@dataclass(frozen=True)
class Dataset(Data):
    """Labelled images in memory, as they are on disk."""

    name: str
    train_images: Tensor  # [N, C, H, W] uint8
    train_labels: Tensor  # [N] int64, 0..len(labels)-1
    test_images: Tensor  # [M, C, H, W] uint8
    test_labels: Tensor  # [M] int64
    labels: tuple[str, ...]
    """What each class is called, by its index."""
    sha256: str
    licence: str
    source: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


def open_dataset(name: str, data_dir: Path) -> Dataset:
    """Read the data set `name` out of `data_dir`; nothing is downloaded.

    Raises:
        DataError: no such data set, or its files are not there.
    """
    if name not in _READERS:
        raise DataError(f"dataset {name!r}: unknown. Known: {', '.join(sorted(_READERS))}.")
    return _READERS[name](Path(data_dir))


def _read_mnist(data_dir: Path) -> Dataset:
    """MNIST (LeCun, Cortes, Burges 1998): 60,000 and 10,000 grey digits of 28 x 28."""
    raw = data_dir / "MNIST" / "raw"
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    missing = [name for name in names if not (raw / name).is_file()]
    if missing:
        raise DataError(
            f"dataset 'mnist': expected the four idx files in {raw}, missing: {', '.join(missing)}. Give the folder "
            'that holds MNIST/raw as --data-dir, or fetch it: python -c "from brigantine_training.torchvision_guard '
            f"import datasets; datasets.MNIST('{data_dir}', download=True)\""
        )
    try:
        train, test = (datasets.MNIST(root=data_dir, train=part, download=False) for part in (True, False))
    except (RuntimeError, ValueError, AssertionError, KeyError) as error:  # as torchvision finds out
        raise DataError(
            f"dataset 'mnist': a file in {raw} is damaged or no idx file ({error!r}). Fetch it again."
        ) from None
    return Dataset(
        name="mnist",
        train_images=train.data[:, None],
        train_labels=train.targets,
        test_images=test.data[:, None],
        test_labels=test.targets,
        labels=tuple(train.classes),
        sha256=sha256_of_files([raw / name for name in sorted(names)]),
        licence="CC BY-SA 3.0",
        source="http://yann.lecun.com/exdb/mnist/",
    )


_READERS: dict[str, Callable[[Path], Dataset]] = {"mnist": _read_mnist}


def sha256_of_files(paths: list[Path]) -> str:
    """Of the files one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Sampler:
    """Endless batches of indices: every image once per epoch, in an order that only the seed decides."""

    def __init__(self, images: int, batch_images: int, seed: int) -> None:
        if batch_images > images:
            raise DataError(f"batch_images={batch_images} is more than the {images} images there are.")
        self._images = images
        self._batch_images = batch_images
        self._random = torch.Generator().manual_seed(seed)
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._epoch_state = self._random.get_state()
        self._order = torch.randperm(self._images, generator=self._random)  # [N] int64
        self._position = 0

    def next(self) -> Tensor:
        """Indices of the next batch, [batch_images] int64. The rest of an epoch that fills no batch is skipped."""
        if self._position + self._batch_images > self._images:
            self._start_epoch()
        start = self._position
        self._position += self._batch_images
        return self._order[start : self._position]

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: the random state that made this epoch's order, and the position in it."""
        return {"epoch_state": self._epoch_state, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""
        self._random.set_state(state["epoch_state"])
        self._start_epoch()
        self._position = state["position"]
