"""Discovery: the plugins that are installed, and those in a folder of files, each held against the contract.

An installed one is an entry point of the group `brigantine.plugins`. In the folder `BRIGANTINE_PLUGINS_DIR` a file
`chime.py`, or a package `chime/`, offers the plugin called `chime`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from .contract import plural_of, violations
from .errors import BrigantineError, PluginInvalid
from .plugin import Plugin
from .settings import Settings
from .store import PLUGIN_GROUP, package_of

__all__ = [
    "AnyPlugin",
    "Origin",
    "PluginRecord",
    "discover",
    "load_file",
    "place_of",
    "plugins_in",
    "reason_of",
    "within",
]

log = logging.getLogger(__name__)

AnyPlugin = Plugin[Any]
T = TypeVar("T")

_MODULE = "brigantine_plugins_dir"
"""Files of the folder are imported below this name, where they meet no installed module."""


class Origin(NamedTuple):
    """Where a plugin's class comes from; another process can load it again."""

    name: str
    target: str
    """The entry point's `module:attribute`, or the file's path."""
    distribution: str
    """What was installed with it, or the folder's file."""
    version: str = ""
    in_folder: bool = False

    @property
    def home(self) -> Path | None:
        """Its file, or the folder of its package; None when it cannot be found. Nothing is imported."""
        if self.in_folder:
            file = Path(self.target)
            return file.parent if file.name == "__init__.py" else file
        try:
            spec = importlib.util.find_spec(package_of(self.target))
        except (ImportError, ValueError):  # no name of a module
            return None
        if spec is None or spec.origin is None:
            return None
        return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)

    @property
    def models_folder(self) -> Path | None:
        """Where the models lie that it brings along, if there are any."""
        home = self.home
        return home and (home if home.is_dir() else home.parent) / "models"

    def load(self) -> type[AnyPlugin]:
        """Import it, and hold it against the contract.

        Raises:
            PluginInvalid: it breaks rules; names every one.
            BaseException: whatever the import raises.
        """
        loaded = load_file(self) if self.in_folder else _entry(self).load()
        if broken := violations(loaded, self.name):
            raise PluginInvalid("; ".join(map(str, broken)))
        return cast("type[AnyPlugin]", loaded)


@dataclass(frozen=True)
class PluginRecord:
    """One plugin that was found: checked, or refused with a reason."""

    origin: Origin
    plugin: type[AnyPlugin] | None = None
    reason: str = ""
    """Why it is not used, or why none of its models is."""
    disabled: bool = False
    """Whether the settings leave it out; it has not been imported."""
    idle: bool = False
    """Whether it could serve, and has no model."""

    @property
    def name(self) -> str:
        return self.origin.name

    @property
    def state(self) -> Literal["serving", "idle", "rejected", "disabled"]:
        if self.disabled or self.idle:
            return "disabled" if self.disabled else "idle"
        return "rejected" if self.reason else "serving"


def discover(settings: Settings) -> dict[str, PluginRecord]:
    """Every plugin by name. One that fails, or takes too long, is rejected; the others are not touched by that."""
    offers: defaultdict[str, list[Origin]] = defaultdict(list)
    for origin in (*_installed(), *plugins_in(settings.plugins_dir)):
        offers[origin.name].append(origin)
    records: dict[str, PluginRecord] = {}
    for name in sorted(offers, key=lambda name: _rank(offers[name][0])):
        records[name] = _agreeing(_checked(offers[name], settings), records.values())
    for name in (*settings.plugins_allow, *settings.plugins_deny):
        if name not in records:
            origin = Origin(name, "", "none")
            why = "named in BRIGANTINE_PLUGINS_ALLOW or _DENY, but there is none; install it, or take it out there"
            records[name] = PluginRecord(origin, reason=why)
    return dict(sorted(records.items()))


def _rank(origin: Origin) -> tuple[bool, bool, str]:
    """Where two disagree, our own come first, then what is installed, then the folder."""
    return origin.in_folder, origin.distribution != "brigantine", origin.name


def reason_of(error: BaseException, home: Path | None = None) -> str:
    """What a record says about why something failed, and what to do about it.

    Args:
        error: what was raised.
        home: the plugin's file or folder, whose line is named when it was raised there.
    """
    if isinstance(error, SyntaxError) and error.filename:
        line = f", {error.text.strip()[:80]!r}" if error.text else ""
        return f"SyntaxError: {error.msg} ({Path(error.filename).name}:{error.lineno}{line}); mend that line"
    place = place_of(error, home)
    if isinstance(error, BrigantineError):
        return f"{error}{place}; mend that line" if place and error.__cause__ else str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; install what provides it, where this service is installed"
    try:
        return f"{type(error).__name__}: {error}{place}" + ("; mend that line" if place else "")
    except Exception:
        return f"{type(error).__name__}, which cannot say why{place}"


def place_of(error: BaseException, home: Path | None) -> str:
    """The line that raised it in the file or folder `home`, such as ` (chime.py:31)`; of what wraps another error, the
    line of that. Empty when it comes from elsewhere.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    inside = [(file, line) for file, line in frames if home is not None and home in (file, *file.parents)]
    return f" ({inside[-1][0].name}:{inside[-1][1]})" if inside else ""


def within(limit_s: float, what: str, call: Callable[[], T]) -> T:
    """What `call` returns or raises, if it ends in time.

    Python cannot stop a thread: one that does not end is left behind, and ends with the service.

    Raises:
        PluginInvalid: it does not end in time, or wants to end the process.
    """
    ended: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            ended.append((True, call()))
        except BaseException as error:  # SystemExit too: a plugin must not end the service
            ended.append((False, error))

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not ended:
        raise PluginInvalid(
            f"{what} did not end within {limit_s:g} s (BRIGANTINE_LOAD_TIMEOUT_S); find out what it waits for"
        )
    [(good, value)] = ended
    if good:
        return value
    if isinstance(value, Exception):
        raise value
    raise PluginInvalid(f"{what} raised {type(value).__name__}: {value}; a plugin must not end the service")


def _installed() -> Iterator[Origin]:
    for entry in metadata.entry_points(group=PLUGIN_GROUP):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "")
        yield Origin(entry.name, entry.value, distribution, version)


def plugins_in(folder: Path | None) -> Iterator[Origin]:
    """The plugins that a folder offers: each file, and each package."""
    if folder is None:
        return
    for path in sorted(folder.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.is_file() and path.name[0] not in "._":
            yield Origin(path.stem, str(file.absolute()), str(path), in_folder=True)


def _entry(origin: Origin) -> metadata.EntryPoint:
    return metadata.EntryPoint(origin.name, origin.target, PLUGIN_GROUP)


def load_file(origin: Origin) -> type[AnyPlugin]:
    """The class in a file whose name is the file's; without one, the only Plugin that it defines.

    Raises:
        PluginInvalid: there is none, or more than one.
        BaseException: whatever the import raises.
    """
    module_name = f"{_MODULE}.{origin.name}"
    file = Path(origin.target)
    package = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(module_name, file, submodule_search_locations=package)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    defined: list[type[AnyPlugin]] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and value.__module__.startswith(module_name)
    ]
    named = [one for one in defined if getattr(one, "name", None) == origin.name] or defined
    if len(named) == 1:
        return named[0]
    got = ", ".join(one.__qualname__ for one in named) or "no class derived from brigantine.Plugin"
    raise PluginInvalid(
        f"{file.name}: expected one Plugin with name = {origin.name!r}, got {got}; define one there"
    )


def _checked(origins: Sequence[Origin], settings: Settings) -> PluginRecord:
    origin = origins[0]
    if origin.name in settings.plugins_deny:
        return PluginRecord(origin, reason="left out by BRIGANTINE_PLUGINS_DENY", disabled=True)
    if settings.plugins_allow and origin.name not in settings.plugins_allow:
        return PluginRecord(origin, reason="not named in BRIGANTINE_PLUGINS_ALLOW", disabled=True)
    if len(origins) > 1:
        names = " and ".join(other.distribution for other in origins)
        why = f"the name {origin.name!r} is offered by {names}; remove or rename all of these but one"
        return PluginRecord(origin, reason=why)
    try:
        plugin = within(settings.load_timeout_s, f"importing the plugin {origin.name}", origin.load)
    except Exception as error:
        return PluginRecord(origin, reason=f"{origin.distribution}: {reason_of(error, origin.home)}")
    return PluginRecord(origin, plugin)


def _agreeing(record: PluginRecord, others: Iterable[PluginRecord]) -> PluginRecord:
    """The record, rejected when its content and its route are not as those of one before it."""
    if record.plugin is None:
        return record
    mine = record.plugin.content, plural_of(record.plugin)
    for other in others:
        if other.plugin is None:
            continue
        theirs = other.plugin.content, plural_of(other.plugin)
        if (mine[0] == theirs[0]) != (mine[1] == theirs[1]):
            why = (
                f"{record.origin.distribution}: content and plural: expected {theirs} as those of the plugin "
                f"{other.name}, or others, got {mine}; give one content one plural"
            )
            return PluginRecord(record.origin, reason=why)
    return record
