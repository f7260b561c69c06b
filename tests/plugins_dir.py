"""Folders of plugins, good and bad, for the tests of discovery and of the server."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.tiny import tiny_model

GOOD = """
    import numpy as np
    from brigantine import Media, Params, Plugin, png
    from pydantic import Field

    class InkParams(Params):
        label: int = Field(0, ge=0, le=2, description="Which.")

    class Ink(Plugin[InkParams]):
        name = "ink"
        content = "blot"
        types = ("image/png",)
        params = InkParams

        def prepare(self, params, rng):
            return {"z": rng.standard_normal(4, dtype=np.float32), "label": np.int64(params.label)}

        def render(self, row, params, media_type):
            return png(row["image"])
"""

_GENERATE = "        def generate(self, batch):\n            "
BAD: dict[str, tuple[str, str]] = {
    "syntax": (GOOD.replace("class Ink(", "class Ink(("), "(syntax.py:9, 'class Ink((Plugin[InkParams]):'); mend"),
    "lacking": ("import no_such_module", "No module named 'no_such_module'; install what provides it"),
    "wrongbase": ("class Ink: pass", "expected one Plugin with name = 'wrongbase', got no class derived from"),
    "twice": (GOOD, "the name 'twice' is offered by "),
    "boundless": (GOOD.replace("ge=0, le=2, ", ""), "InkParams.label: expected bounds, got integer without a lower"),
    "rowless": (
        GOOD + _GENERATE + "return {'image': self.session.run(batch)['image'][:1]}",
        "generate() must return as many rows as it is given: image has 1 for 2",
    ),
    "loadless": (GOOD + "        def load(self):\n            raise ValueError('no ink')", "no ink (loadless.py:21)"),
    "failing": (GOOD + _GENERATE + "raise RuntimeError('dried up')", "dried up (failing.py:21); mend"),
    "sleepy": (
        GOOD + "        def load(self):\n            import time; time.sleep(10_000)",
        "loading sleepy with the plugin sleepy did not end within ",
    ),
    "crashing": (
        GOOD.replace('name = "ink"', 'name = "ink"; isolation = "process"')
        + _GENERATE
        + "import ctypes; ctypes.string_at(0)",
        "SIGSEGV",
    ),
}  # fmt: skip
"""By name: a plugin that is bad in one way, and what is said about it."""


def plugin_file(folder: Path, name: str, source: str = GOOD) -> Path:
    """`folder/name.py`, whose plugin has this name and makes content of its own."""
    file = folder / f"{name}.py"
    file.write_text(textwrap.dedent(source).replace('"ink"', f'"{name}"').replace('"blot"', f'"{name}"'))
    return file


def bad_plugins(folder: Path) -> Path:
    """A folder with every bad plugin, each with a model."""
    folder.mkdir()
    for name, (source, _) in BAD.items():
        plugin_file(folder, name, source)
        tiny_model(folder / "models", name, plugin=name)
    (folder / "twice").mkdir()
    (plugin_file(folder / "twice", "twice")).rename(folder / "twice" / "__init__.py")
    return folder
