"""What the processes of one service share: a folder of their own, below the system's folder for temporary files.

BentoML's own folder for counts is one for all services of a user, each of which empties it at its start.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

__all__ = ["Shared"]

_VARIABLE = "_BRIGANTINE_SHARED_DIR"


class Shared:
    """The folder, and what each file in it says.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts = folder / "counts"
        """One file of each process for each kind of metric."""
        self.cores = folder / "cores"
        """Which cores are used."""
        self._answering = folder / "answering"
        self._stopping = folder / "stopping"

    @classmethod
    def create(cls) -> Shared:
        """A new one, which every process started from now on finds."""
        shared = cls(Path(tempfile.mkdtemp(prefix="brigantine-")))
        shared.counts.mkdir()
        shared._answering.touch()
        os.environ[_VARIABLE] = str(shared.folder)
        return shared

    @classmethod
    def found(cls) -> Shared | None:
        """That of this service; None for a process that is the only one."""
        return cls(Path(os.environ[_VARIABLE])) if _VARIABLE in os.environ else None

    def answer(self) -> int:
        """This process answers from now on, until it closes what this returns, or dies: the lock is the kernel's."""
        lock = os.open(self._answering, os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_SH)
        return lock

    def anybody_answers(self) -> bool:
        """Whether any process does."""
        lock = os.open(self._answering, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def stop(self) -> None:
        """The whole service stops."""
        self._stopping.touch()

    @property
    def stopping(self) -> bool:
        """Whether the whole service stops, and not this process alone, in whose place another one comes."""
        return self._stopping.exists()
