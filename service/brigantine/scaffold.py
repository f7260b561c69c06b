"""The scaffold: `brigantine plugins new` writes a plugin that works, to be changed into the one that is wanted.

What it writes lies in `template/`, file by file, with `$` before each word that depends on the name. The project that
it writes for the name `chime` is also `examples/brigantine-chime`, where linters and types are checked.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from .contract import plural_of_word
from .errors import BadParams, FieldError, SettingsInvalid
from .model import GRAPH, sha256_of
from .store import PLUGIN_GROUP

__all__ = ["new"]

_TEMPLATE = Path(__file__).parent / "template"
_GRAPH = _TEMPLATE / "src" / "package" / "models" / "model" / GRAPH
_SUFFIX = ".tmpl"
"""At the end of a file's name in the template: words are filled in. The other files are copied."""
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_LONGEST = 61  # with es, the longest word of a route
_ROUTES = ("models", "plugins")


def new(name: str, folder: Path) -> Path:
    """Write the project `brigantine-<name>` below `folder`, whole or not at all, and return its path.

    It is a distribution with the plugin `name`, which makes content of that name, its model and its tests; it can be
    installed and served as it is.

    Raises:
        BadParams: `name` cannot be a plugin's, or is taken; or there is such a project already.
        SettingsInvalid: `folder` cannot be written to.
    """
    _check(name)
    project = folder / f"brigantine-{name}"
    if project.exists():
        got = f"{name!r}: {project} exists; move it away, or choose another name"
        raise BadParams([FieldError("NAME", "one that has no project here yet", got)])
    try:
        with TemporaryDirectory(dir=folder, prefix=".brigantine-new-") as aside:
            written = Path(aside) / project.name
            _write(name, written)
            written.rename(project)
    except OSError as error:
        raise SettingsInvalid(
            f"{folder}: expected a folder to write {project.name} into, got {error.strerror!r}; go to another one"
        ) from error
    return project


def _check(name: str) -> None:
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        expected = (
            f"a-z and 0-9, a letter first, single - or _ between, at most {_LONGEST}: chime or night-sky, say"
        )
        raise BadParams([FieldError("NAME", expected, repr(name[: _LONGEST + 1]))])
    taken = {entry.name: entry.dist for entry in metadata.entry_points(group=PLUGIN_GROUP)}
    if name in taken:
        owner = getattr(taken[name], "name", "an unknown distribution")
        got = f"{name!r}, which {owner} offers; choose another, or uninstall that"
        raise BadParams([FieldError("NAME", "one that no installed plugin has", got)])
    if (plural := plural_of_word(name)) in _ROUTES:
        got = f"{name!r}, but /v1/{plural} is a route of the service; choose another"
        raise BadParams([FieldError("NAME", "one whose route is free", got)])


def _write(name: str, project: Path) -> None:
    word = name.replace("-", "_")
    title = "".join(part.capitalize() for part in word.split("_"))
    places = {"package": f"brigantine_{word}", "model": name}
    words = {
        "name": name,
        "plural": plural_of_word(name),
        "word": word,
        "title": title,
        "sha256": sha256_of(_GRAPH),
    }
    for source in _TEMPLATE.rglob("*"):
        if source.is_dir():
            continue
        parts = (places.get(part, part) for part in source.relative_to(_TEMPLATE).parts)
        target = project.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == _SUFFIX:
            text = Template(source.read_text("utf-8")).substitute(words)
            target.with_suffix("").write_text(text, "utf-8")
        else:
            target.write_bytes(source.read_bytes())
