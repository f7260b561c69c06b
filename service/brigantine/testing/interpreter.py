"""Rules that need a fresh interpreter: what an import costs, and that a restart changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..media import Media
from . import fresh
from .finding import Breach
from .rule import Rule
from .subject import SEED, Subject

__all__ = ["RULES"]

_MOST_S = 2.0
_PATIENCE_S = 120.0
_BODIES = 5


class _Fresh(NamedTuple):
    """What the fresh interpreter said."""

    answer: Mapping[str, Any]
    trouble: str = ""
    """The last line of its traceback, when it raised."""


def _import_time(subject: Subject) -> Iterator[Breach]:
    """Its module is imported in 2 s, without torch and without bentoml."""
    if not _is_importable(subject):
        return
    where, run = f"import {subject.kind.__module__}", _ask(subject, ())
    if not run.trouble and run.answer["seconds"] > _MOST_S:
        run = _ask(subject, ())  # the machine may have been busy, or the files cold
    if run.trouble:
        yield Breach(
            where,
            "an import in a fresh interpreter",
            run.trouble,
            "import all that it needs in its own module",
        )
        return
    if run.answer["seconds"] > _MOST_S:
        remedy = "import what is large inside load()"
        yield Breach(where, f"at most {_MOST_S:g} s", f"{run.answer['seconds']:.1f} s", remedy)
    if heavy := run.answer["heavy"]:
        remedy = "serving needs neither: export to ONNX, and leave training out of the plugin's module"
        yield Breach(where, "neither torch nor bentoml", " and ".join(heavy), remedy)


def _restart(subject: Subject) -> Iterator[Breach]:
    """After a restart the same seed makes the same bytes."""
    if not _is_importable(subject) or "<locals>" in subject.said:
        return
    kind = subject.kind.types[0]
    made = [(trial.body, trial.outcomes[kind]) for trial in subject.trials]
    bodies = {
        json.dumps(body): media.body
        for body, media in made
        if isinstance(media, Media) and isinstance(cast(object, media.body), bytes)
    }
    wanted = dict(list(bodies.items())[:_BODIES])
    run = _ask(subject, tuple(wanted))
    if run.trouble:
        remedy = "let its module be all that it needs"
        yield Breach(subject.said, "the same bytes after a restart", run.trouble, remedy)
    elif run.answer["digests"] != [sha256(body).hexdigest() for body in wanted.values()]:
        remedy = (
            "take nothing from hash(), the order of a set, the time or the process; it changes at a restart"
        )
        yield Breach(subject.said, "the same bytes after a restart", "others", remedy)


def _is_importable(subject: Subject) -> bool:
    """Whether another process can have it: what was typed into a prompt, or runs as a script, it cannot."""
    return subject.kind.__module__ != "__main__" and subject.file is not None


def _ask(subject: Subject, bodies: tuple[str, ...]) -> _Fresh:
    """Import the plugin in a fresh interpreter, and make what the `bodies` in JSON ask for."""
    task = {
        "path": [entry or os.getcwd() for entry in sys.path],
        "module": subject.kind.__module__,
        "class": subject.kind.__qualname__,
        "file": subject.file,
        "model": str(subject.model.path.absolute()) if bodies else "",
        "seed": SEED,
        "made": [cast(object, json.loads(body)) for body in bodies],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.json"
        file.write_text(json.dumps(task))
        # Another order of sets than here, whatever it is here.
        environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, str(fresh.__file__), str(file)]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S, env=environment
            )
        except subprocess.TimeoutExpired:
            return _Fresh({}, f"no end within {_PATIENCE_S:g} s")
        if ran.returncode:
            return _Fresh({}, (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1])
        return _Fresh(json.loads(file.with_name(fresh.ANSWER).read_text()))


RULES = (
    Rule("import-time", "class", _import_time),
    Rule("restart", "steady", _restart),
)
