"""What a check has found, and how it reads files."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

__all__ = ["Fault", "Report", "each", "one_of", "path_of"]


class Fault(NamedTuple):
    """Something that is wrong."""

    file: str
    where: str
    expected: str
    got: object

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: expected {self.expected}, got {self.got!r}"


class Report:
    """Faults, and what could not be checked, of one folder.

    Args:
        folder: what is checked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.files: set[str] = set()

    def fault(self, file: Path, where: str, expected: str, got: object) -> None:
        """Something is wrong; said twice it counts once, since several overlays stand on one base."""
        found = Fault(self.name(file), where, expected, got)
        if found not in self.faults:
            self.faults.append(found)

    def note(self, text: str) -> None:
        """Something could not be checked."""
        self.notes.append(text)

    def text(self, file: Path) -> str:
        """What the file has; empty, and a fault, when it is not there."""
        self.files.add(self.name(file))
        try:
            return file.read_text()
        except OSError as error:
            self.fault(file, "file", "one that can be read", error.strerror)
            return ""

    def documents(self, file: Path) -> list[Any]:
        """The YAML documents of the file; none, and a fault, when it cannot be parsed."""
        try:
            return [found for found in yaml.load_all(self.text(file), _Strict) if found is not None]
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f"line {mark.line + 1}" if mark is not None else "file"
            self.fault(file, line, "YAML", getattr(error, "problem", str(error)))
            return []

    def name(self, file: Path) -> str:
        return str(file.resolve().relative_to(self.folder.resolve().parent))


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's readers silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} twice", key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def one_of(known: Iterable[str], got: str, what: str) -> str:
    """What was expected, as a text: the nearest of what is known."""
    near = difflib.get_close_matches(got, list(known), 1)
    return f"{what} (did you mean {near[0]}?)" if near else what


def path_of(keys: Iterable[object]) -> str:
    """Keys as a text with dots."""
    return ".".join(map(str, keys)) or "document"


def each(value: Any, visit: Callable[[tuple[object, ...], Any], None], at: tuple[object, ...] = ()) -> None:
    """Visit every value below this one, with the keys that lead to it."""
    visit(at, value)
    items: Iterable[tuple[object, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, below in items:
        each(below, visit, (*at, key))
