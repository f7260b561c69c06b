"""What a plugin is in a fresh interpreter: how long its import takes, what that pulls in, and what it makes.

Run as a script, by its path, with the path of a task in JSON; the answer goes beside it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["ANSWER"]

ANSWER = "answer.json"
_HEAVY = ("bentoml", "torch")


def _main(file: Path) -> None:
    task = json.loads(file.read_text())
    sys.path[:] = task["path"]
    import brigantine  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport] - it does not count as the plugin's

    begin = time.perf_counter()
    module = _imported(task["module"], task["file"])
    answer = {
        "seconds": time.perf_counter() - begin,
        "heavy": [name for name in _HEAVY if name in sys.modules],
        "digests": _digests(module, task) if task["made"] else [],
    }
    file.with_name(ANSWER).write_text(json.dumps(answer))


def _imported(name: str, file: str) -> ModuleType:
    """The module; one that the path does not have, from its file."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _digests(module: ModuleType, task: dict[str, Any]) -> list[str]:
    """Of what the plugin makes of each body, with the seed of the task."""
    from brigantine import Model, Session  # noqa: PLC0415 - after the clock has stopped
    from brigantine.request import parse, request_type  # noqa: PLC0415
    from brigantine.testing.journey import Wish, make  # noqa: PLC0415

    kind = attrgetter(task["class"])(module)
    model = Model.open(Path(task["model"]))
    plugin = kind(model, Session.open(model))
    request = request_type(kind.params, "Examined", 1)
    wishes = [Wish(parse(request, body), task["seed"]) for body in task["made"]]
    return [sha256(make(plugin, [wish])[0].body).hexdigest() for wish in wishes]


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
