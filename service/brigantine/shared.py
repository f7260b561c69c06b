"""What the processes of one service share: a folder of their own, below the system's folder for temporary files.

BentoML's own folder for counts is one for all services of a user, each of which empties it at its start.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Shared"]

_VARIABLE = "_BRIGANTINE_SHARED_DIR"
_PREFIX = "brigantine-run-"
_TICK_S = 0.002
_PATIENCE_S = 5.0
"""How long a process waits for another one to stop answering in its place."""


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
        self.connections = folder / "connections"
        """How many each worker has."""
        self.weights = folder / "weights"
        """Those of each model, where there is more than one worker."""
        self._answering = folder / "answering"
        self._door = folder / "door"
        self._stopping = folder / "stopping"

    @classmethod
    def create(cls) -> Shared:
        """A new one, which every process started from now on finds."""
        cls._sweep()
        shared = cls(Path(tempfile.mkdtemp(prefix=_PREFIX)))
        # For as long as this process lives, or one that it has forked; systemd-tmpfiles(8) heeds it, too.
        _locked(os.open(shared.folder, os.O_RDONLY), fcntl.LOCK_SH)
        shared.counts.mkdir()
        os.mkfifo(shared._answering)  # of which the kernel knows whether anybody has it open
        shared._door.touch()
        os.environ[_VARIABLE] = str(shared.folder)
        return shared

    @classmethod
    def _sweep(cls) -> None:
        """Remove the folders of services that were killed."""
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError):
                # A folder that is being created is locked before it has this.
                if folder.lstat().st_uid == os.geteuid() and cls(folder)._answering.is_fifo():
                    _remove_unlocked(folder)

    @classmethod
    def found(cls) -> Shared | None:
        """That of this service; None for a process that is the only one."""
        return cls(Path(os.environ[_VARIABLE])) if _VARIABLE in os.environ else None

    def answer(self) -> int:
        """This process answers from now on, until it closes what this returns, or dies.

        Whoever answers in the place of the workers hears of it, and has stopped to before this returns.
        """
        told = os.open(self._answering, os.O_RDWR | os.O_NONBLOCK)
        with suppress(BlockingIOError):  # it is full: nobody hears, and nobody stands in
            os.write(told, b"!")
        door = os.open(self._door, os.O_RDONLY)
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(door, fcntl.LOCK_SH) and time.monotonic() < deadline:
            time.sleep(_TICK_S)
        os.close(door)
        return told

    def listen(self) -> int:
        """What can be read where a process begins to answer, and is at its end when none does any more.

        After an end it has to be opened anew.
        """
        return os.open(self._answering, os.O_RDONLY | os.O_NONBLOCK)

    @contextmanager
    def standing_in(self) -> Generator[None]:
        """Within this, a process that begins to answer waits."""
        door = os.open(self._door, os.O_RDONLY)
        fcntl.flock(door, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(door)

    def stop(self) -> None:
        """The whole service stops."""
        self._stopping.touch()

    @property
    def stopping(self) -> bool:
        """Whether the whole service stops, and not this process alone, in whose place another one comes."""
        return self._stopping.exists()


def _remove_unlocked(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if _locked(held, fcntl.LOCK_EX):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)


def _locked(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
