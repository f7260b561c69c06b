"""`brigantine plugins`: what those who write plugins need."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Column, Table

from .discovery import AnyPlugin, Origin, discover, load_file
from .errors import BadParams, FieldError, ModelInvalid, PluginInvalid, PluginNotFound
from .model import Arrays, read_manifest
from .plugin import Done
from .registry import Registry
from .request import derive_seed, parse, prepare_row, request_type, seed_of
from .session import Session
from .settings import Settings
from .store import Found, Store

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The plugins that are installed.")
console = Console(markup=False, highlight=False)  # names, paths and messages are not ours to interpret
T = TypeVar("T")


@app.command("list")
def list_plugins() -> None:
    """Every plugin that was found; one that was rejected says why."""
    table = Table("plugin", "content", "types", "distribution", Column("state", overflow="fold"))
    registry = Registry.load(Settings.read())
    registry.close()
    for record in registry.plugins.values():
        table.add_row(
            record.name,
            record.plugin.content if record.plugin else "",
            ", ".join(record.plugin.types) if record.plugin else "",
            f"{record.origin.distribution} {record.origin.version}",
            record.reason or record.state,
        )
    console.print(table)


@app.command()
def check(
    plugin: Annotated[str, typer.Argument(help="A plugin's name, or its file or package.")],
    model: Annotated[str, typer.Option(help="The model to check it with; else each one that it has.")] = "",
) -> None:
    """Hold a plugin against every rule of the conformance kit; exit code 1 when it breaks one."""
    from .testing import examine

    settings = Settings.read()
    kind, places = _found(plugin, settings)
    places = {name: place for name, place in places.items() if model in ("", name)}
    if not places:
        raise PluginInvalid(
            f"{kind.name}: expected a model to check it with, found {model or 'none'}; put one into models/ beside it, "
            "or publish one"
        )
    findings = [(name, one) for name, place in places.items() for one in examine(kind, place.open())]
    for name, one in findings:
        console.print(f"{name}: {one.rule}: {one}", soft_wrap=True)
    if findings:
        raise typer.Exit(1)
    console.print(f"{kind.name} keeps the contract with {', '.join(places)}")


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
    kind = _class_of(opened.manifest.plugin, settings)
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
    seeds = [derive_seed(seed, index) for index in range(request.n)]
    states: dict[int, Any] = dict(
        enumerate(
            _timed(table, "prepare", lambda: [prepare_row(plugin, request, one) for one in seeds], _rows)
        )
    )
    done: dict[int, Arrays] = {}
    while states:
        running = list(states.values())
        stepped = _timed(table, "step", lambda running=running: plugin.step(running), _states)
        after = dict(zip(states, stepped, strict=True))
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


def _found(plugin: str, settings: Settings) -> tuple[type[AnyPlugin], dict[str, Found]]:
    """The class that `plugin` names, and its models."""
    path = Path(plugin)
    file = path / "__init__.py" if path.is_dir() else path
    if file.is_file():
        kind = load_file(Origin(path.stem, str(file.absolute()), str(path), in_folder=True))
        folder = path.absolute() if path.is_dir() else path.absolute().parent
        beside = Store(folder / "models" if (folder / "models").is_dir() else None)
        return kind, _served_by(kind.name, beside)
    kind = _class_of(plugin, settings)
    return kind, _served_by(plugin, Store(settings.models_dir, settings.plugins_dir))


def _served_by(plugin: str, store: Store) -> dict[str, Found]:
    return {name: place for name, place in store.find().items() if _plugin_of(place) == plugin}


def _plugin_of(place: Found) -> str:
    try:
        return read_manifest(place.path).plugin
    except ModelInvalid:
        return ""


def _class_of(name: str, settings: Settings) -> type[AnyPlugin]:
    records = discover(settings)
    if name not in records:
        raise PluginNotFound(f"plugin {name!r}: expected a file, a package, or one of {', '.join(records)}")
    record = records[name]
    if record.plugin is None:
        raise PluginInvalid(f"{name}: {record.reason}")
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
