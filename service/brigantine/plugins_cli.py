"""`brigantine plugins`: what those who write plugins need."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from .discovery import AnyPlugin, Origin, PluginRecord, discover, load_file, plugins_in, reason_of, within
from .errors import BadParams, FieldError, ModelInvalid, PluginInvalid, PluginNotFound
from .model import Arrays, read_manifest
from .plugin import Done, Part
from .registry import Registry
from .request import parse, prepare_row, request_type, seed_of
from .seeds import derive_seeds
from .session import Session
from .settings import Settings
from .store import Found, Store, models_below

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The plugins that are installed.")
console = Console(markup=False, highlight=False)  # names, paths and messages are not ours to interpret
T = TypeVar("T")

_SHOWN = 3
"""Models of others that are named."""


@app.command("list")
def list_plugins() -> None:
    """Every plugin that was found; one that does not serve says why."""
    table = Table("plugin", "content", "types", "distribution", "state")
    registry = Registry.load(Settings.read())
    registry.close()
    for record in registry.plugins.values():
        table.add_row(
            record.name,
            record.plugin.content if record.plugin else "",
            ", ".join(record.plugin.types) if record.plugin else "",
            f"{record.origin.distribution} {record.origin.version}",
            record.state,
        )
    console.print(table)
    for record in registry.plugins.values():
        if record.reason:  # a cell of a table is too narrow for it
            console.print(f"{record.name} is {record.state}: {record.reason}", soft_wrap=True)


@app.command()
def check(
    plugin: Annotated[str, typer.Argument(help="A plugin's name, or its file or package.")],
    model: Annotated[str, typer.Option(help="The model to check it with; else each one that it has.")] = "",
) -> None:
    """Hold a plugin against every rule of the conformance kit; exit code 1 when it breaks one."""
    from .testing import examine
    from .testing.examination import CONTRACT

    candidate = _candidate(plugin, Settings.read())
    kind, offered, label = candidate.kind, candidate.offered, candidate.label
    places = {name: place for name, place in candidate.models().items() if model in ("", name)}
    # What its class alone breaks shows without a model, and is said once.
    own = examine(kind, "", name=offered, only=CONTRACT)
    findings = [(label, one) for one in own]
    for name, place in places.items():
        found = examine(kind, place.path, name=offered)
        findings += [(name, one) for one in found if one not in own]
    for name, one in findings:
        console.print(f"{name}: {one.rule}: {one}", soft_wrap=True)
    if not places:
        raise PluginInvalid(candidate.without_model(model))
    if findings:
        raise typer.Exit(1)
    console.print(f"{label} keeps the contract with {', '.join(places)}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What the plugin, and its content, will be called.")],
) -> None:
    """Write a plugin's project into this folder: plugin, model, test, pyproject.toml, README.md."""
    from .scaffold import new as write

    folder = write(name, Path.cwd())
    console.print(f"wrote {folder}; its README.md says what to do next", soft_wrap=True)


@app.command()
def trace(
    model: Annotated[str, typer.Argument(help="The model's name; see `brigantine models list`.")],
    body: Annotated[str, typer.Argument(help='The request: {"seed": 7}')] = "{}",
) -> None:
    """Make one request here, stage by stage, with the shapes and the times of each."""
    settings = Settings.read()
    opened = Store(settings.models_dir, settings.plugins_dir).get(model).open()
    kind = _class_of(_record(opened.manifest.plugin, settings))
    table = Table("stage", "what", "ms")
    plugin = _timed(
        table, "load", lambda: kind(opened, Session.open(opened, settings.session(model))), _device
    )
    request = _timed(
        table,
        "validate",
        lambda: parse(request_type(kind.params, "Traced", settings.max_n), _object(body)),
        repr,
    )
    seed = seed_of(request)
    seeds = derive_seeds(seed, range(request.n))
    states: dict[int, Any] = dict(
        enumerate(
            _timed(table, "prepare", lambda: [prepare_row(plugin, request, one) for one in seeds], _rows)
        )
    )
    done: dict[int, Arrays] = {}
    while states:
        running = list(states.values())
        stepped = _timed(table, "step", lambda running=running: plugin.step(running), _states)
        after = dict(zip(states, map(Part.state_of, stepped), strict=True))
        done |= {index: state.row for index, state in after.items() if isinstance(state, Done)}
        states = {index: state for index, state in after.items() if not isinstance(state, Done)}
    for index, one in enumerate(seeds):
        _timed(
            table,
            f"render, seed {one}",
            lambda row=done[index]: plugin.render(row, request, plugin.types[0]),
            lambda media: f"{media.type}, {len(media.body)} bytes, {dict(media.info)}",
        )
    console.print(table)


class _Candidate(NamedTuple):
    """A plugin that is to be checked."""

    kind: type[AnyPlugin]
    offered: str | None
    """The name that it must have; None for its own."""
    store: Store
    folder: Path
    """Where its models are expected."""

    @property
    def label(self) -> str:
        return str(getattr(self.kind, "name", "") or self.offered or self.kind.__qualname__)

    def models(self) -> dict[str, Found]:
        """The models whose manifest names it."""
        return {name: place for name, place in self.store.find().items() if _plugin_of(place) == self.label}

    def without_model(self, wanted: str) -> str:
        """Why it cannot be checked with the model `wanted`, or with any."""
        there = ", ".join(self.models())
        if there:
            return (
                f"{self.label}: expected one of its models, {there}, got --model {wanted}; take one of these"
            )
        others = [
            f"models/{place.name}, whose manifest "
            + (
                f"says plugin {other!r}, not {self.label!r}"
                if (other := _plugin_of(place))
                else "cannot be read"
            )
            for place in models_below(self.folder, "")
        ][:_SHOWN]
        return (
            f"{self.label}: expected a model to check it with, found {'; '.join(others) or 'none'}; put one whose "
            f'manifest has "plugin": "{self.label}" into {self.folder}, or publish one'
        )


def _candidate(plugin: str, settings: Settings) -> _Candidate:
    """What `plugin` names.

    Raises:
        PluginInvalid: it cannot be imported, or is none.
        PluginNotFound: there is nothing of this name.
    """
    path = Path(plugin)
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        record = _record(plugin, settings)
        folder = record.origin.models_folder or Path("models")
        store = Store(settings.models_dir, settings.plugins_dir)
        return _Candidate(_class_of(record), record.name, store, folder)
    origin = Origin(path.absolute().stem, str(file.absolute()), str(path), in_folder=True)
    try:
        kind = within(settings.load_timeout_s, f"importing {path}", lambda: load_file(origin))
    except Exception as error:
        raise PluginInvalid(f"{path}: {reason_of(error, origin.home)}") from error
    folder = (path.absolute() if path.is_dir() else path.absolute().parent) / "models"
    is_offered = (
        settings.plugins_dir is not None and path.absolute().parent == settings.plugins_dir.absolute()
    )
    store = Store(folder if folder.is_dir() else None)
    return _Candidate(kind, origin.name if is_offered else None, store, folder)


def _plugin_of(place: Found) -> str:
    try:
        return read_manifest(place.path).plugin
    except ModelInvalid:
        return ""


def _record(name: str, settings: Settings) -> PluginRecord:
    records = discover(settings)
    if name in records:
        return records[name]
    folder = Path(name)
    if folder.is_dir():
        packages = [str(file.parent) for file in sorted(folder.glob("src/*/__init__.py"))]  # of a project
        inside = packages or [origin.distribution for origin in plugins_in(folder)]
        remedy = f"name one in it: {', '.join(inside)}" if inside else "name a file"
        raise PluginNotFound(f"{name}: expected a file, or a package, got a folder; {remedy}")
    raise PluginNotFound(f"plugin {name!r}: expected a file, a package, or one of {', '.join(records)}")


def _class_of(record: PluginRecord) -> type[AnyPlugin]:
    if record.plugin is None:
        raise PluginInvalid(f"{record.name}: {record.reason}")
    return record.plugin


def _timed(table: Table, stage: str, run: Callable[[], T], told: Callable[[T], str]) -> T:
    begin = time.perf_counter()
    value = run()
    took_ms = 1e3 * (time.perf_counter() - begin)
    table.add_row(stage, told(value), f"{took_ms:.3f}")
    return value


def _object(body: str) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadParams([FieldError("BODY", "a JSON object", f"{body[:40]!r}: {error}")]) from None
    if not isinstance(value, dict):
        raise BadParams([FieldError("BODY", "a JSON object", repr(body[:40]))])
    return value  # pyright: ignore[reportUnknownVariableType] - what is in it is for `parse` to judge


def _device(plugin: AnyPlugin) -> str:
    return f"{plugin.name} with {plugin.model.name} on {plugin.session.device}"


def _rows(rows: list[Arrays]) -> str:
    return f"{len(rows)} x {_arrays(rows[0])}"


def _states(states: Any) -> str:
    done = [state for state in states if isinstance(state, Done)]
    return f"{len(done)} of {len(states)} done" + (f", {_arrays(done[0].row)}" if done else "")


def _arrays(row: Arrays) -> str:
    return ", ".join(
        f"{name} {np.asarray(value).dtype}{list(np.asarray(value).shape)}" for name, value in row.items()
    )
