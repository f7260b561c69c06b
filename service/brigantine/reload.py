"""Reload: in `--dev` a change in the folder of plugins has the worker replaced by one that reads it anew."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from pathlib import Path

import watchfiles

__all__ = ["Sources", "follow", "heeds_hangups"]

log = logging.getLogger(__name__)

_REPLACED_S = 15.0
"""Within which a supervisor that was told so has replaced a worker."""


def follow(folder: Path) -> None:
    """Have this worker replaced as soon as a plugin or a model in `folder` changes. Never returns."""
    folder, supervisor = folder.resolve(), os.getppid()
    for changes in watchfiles.watch(folder, watch_filter=Sources(folder)):
        names = ", ".join(sorted({Path(path).name for _, path in changes}))
        log.info("%s changed: starting anew", names)
        # A hang-up tells BentoML's supervisor, circus, to start a new worker at once, and to end this one; what arrives
        # meanwhile waits in their socket.
        if os.getppid() == supervisor and heeds_hangups(supervisor):
            os.kill(supervisor, signal.SIGHUP)
            time.sleep(_REPLACED_S)  # and then it was busy, or means something else by it
        os.kill(os.getpid(), signal.SIGTERM)


def heeds_hangups(pid: int) -> bool:
    """Whether a process has a handler for SIGHUP, which would end it otherwise (proc(5), SigCgt)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.M)
    return caught is not None and bool(int(caught[1], 16) & 1 << (signal.SIGHUP - 1))


class Sources(watchfiles.DefaultFilter):
    """Of the changes in a folder of plugins those that matter: Python's files, and models. Editors write others."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __call__(self, change: watchfiles.Change, path: str) -> bool:
        file = Path(path)
        above = file.relative_to(self._folder).parts[:-1]
        is_model = "models" in above and (above[-1] == "models" or file.suffix != "")
        is_source = file.suffix == ".py" or (file / "__init__.py").is_file()
        return (is_source or is_model) and file.name[0] not in ".#" and super().__call__(change, path)
