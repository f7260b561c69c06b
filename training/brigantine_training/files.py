"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """A file to write, which takes the place of `path` at the end; a failure leaves `path` as it was."""
    temporary = path.with_name(f"{path.name}.tmp")  # of one name: the next to write takes a dead one over
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
