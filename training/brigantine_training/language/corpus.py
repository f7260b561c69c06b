"""Corpus: one text, its first part to learn from and its last to be judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..data import Data, sha256_of_files
from ..errors import DataError

__all__ = ["Corpus", "open_corpus"]

_TRAIN_SHARE = 0.9


@dataclass(frozen=True)
class Corpus(Data):
    """A text in memory, cut in two."""

    name: str
    train_text: str
    test_text: str
    """What follows `train_text`; never trained on."""
    sha256: str
    licence: str
    source: str
    about: str
    """What a model of it writes like, in words."""
    model: str
    """What a model of it is called."""


def open_corpus(name: str, data_dir: Path) -> Corpus:
    """Read the text `name` out of `data_dir`; nothing is downloaded.

    Raises:
        DataError: no such text, or its file is not there.
    """
    if name not in _READERS:
        raise DataError(f"dataset {name!r}: unknown. Known: {', '.join(sorted(_READERS))}.")
    return _READERS[name](Path(data_dir))


def _read_tinyshakespeare(data_dir: Path) -> Corpus:
    """Scenes from Shakespeare's plays, 1,115,394 characters (Karpathy 2015)."""
    source = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    file = data_dir / "tinyshakespeare.txt"
    if not file.is_file():
        raise DataError(
            f"dataset 'tinyshakespeare': expected {file}, found none. Give the folder that holds it as --data-dir, or "
            f"fetch it: curl -o {file} {source}"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"dataset 'tinyshakespeare': {file} is no UTF-8 text ({error}). Fetch it again."
        ) from None
    cut = int(_TRAIN_SHARE * len(text))
    return Corpus(
        name="tinyshakespeare",
        train_text=text[:cut],
        test_text=text[cut:],
        sha256=sha256_of_files([file]),
        licence="public domain",
        source=source,
        about="Shakespeare's plays",
        model="shakespeare",
    )


_READERS: dict[str, Callable[[Path], Corpus]] = {"tinyshakespeare": _read_tinyshakespeare}
