"""The registry: discovers plugins, checks them, and loads the models that they serve.

A plugin or a model that fails is rejected with its reason; the others serve.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, cast

import numpy as np

from .errors import BrigantineError, ModelNotFound, ModelRejected, PluginInvalid, PluginNotFound
from .media import Media
from .model import Arrays, Model, read_manifest
from .plugin import Done, Params, Plugin
from .request import RESERVED, prepare_row, request_type
from .session import Session
from .settings import Settings
from .store import PLUGIN_GROUP, Found, Store

__all__ = ["AnyPlugin", "ModelRecord", "PluginRecord", "Registry"]

log = logging.getLogger(__name__)

AnyPlugin = Plugin[Any]

_PATIENCE_S = 1.0
"""How long a model is tried with larger and larger batches at the start."""


@dataclass(frozen=True)
class PluginRecord:
    """One entry point of the group `brigantine.plugins`: checked, or rejected with a reason."""

    name: str
    distribution: str
    version: str
    plugin: type[AnyPlugin] | None = None
    reason: str = ""

    @property
    def state(self) -> str:
        return "serving" if self.plugin else "rejected"


@dataclass(frozen=True)
class ModelRecord:
    """One model that was found: served by its plugin, or rejected with a reason."""

    name: str
    source: str
    model: Model | None = None
    plugin: AnyPlugin | None = None
    reason: str = ""
    plugin_name: str = ""
    """What its manifest says; empty when the manifest cannot be read."""
    invariant: bool = False
    """Whether a row had the same bits alone and in every batch that was tried at the start."""
    tried_batch: int = 0
    """The largest batch that was tried, in rows."""

    @property
    def state(self) -> str:
        return "serving" if self.plugin else "rejected"


class Registry:
    """All plugins and all models of this process."""

    def __init__(self, plugins: dict[str, PluginRecord], models: dict[str, ModelRecord]) -> None:
        self.plugins = plugins
        self.models = models

    @classmethod
    def load(cls, settings: Settings, only: str | None = None) -> Registry:
        """Discover, check, load and warm up everything; or, with `only`, the model of that name.

        Raises:
            PluginInvalid: something was rejected and `settings.strict` is on.
            ModelNotFound: there is no model called `only`.
        """
        plugins = {record.name: record for record in _discover()}
        store = Store(settings.models_dir)
        wanted = store.find() if only is None else {only: store.get(only)}
        models = {name: _load(place, plugins, settings) for name, place in wanted.items()}
        registry = cls(plugins, models)
        rejected = [r for r in (*plugins.values(), *models.values()) if r.state == "rejected"]
        for record in rejected:
            log.error("%s %r rejected: %s", type(record).__name__, record.name, record.reason)
        if rejected and settings.strict:
            raise PluginInvalid("; ".join(f"{record.name}: {record.reason}" for record in rejected))
        return registry

    def find(self, name: str) -> ModelRecord:
        """The record of a model that can serve.

        Raises:
            ModelNotFound: there is none of this name; the message lists those there are.
            ModelRejected: there is one, but it was rejected; the message says why.
        """
        record = self.models.get(name)
        if record is None:
            raise ModelNotFound(
                f"model {name[:80]!r}: expected one of {', '.join(self.models) or 'none (there is none)'}"
            )
        if record.plugin is None:
            raise ModelRejected(f"model {name!r} is not served: {record.reason}")
        return record

    def default(self, content: str, preferred: str) -> str:
        """The model of a request that names none: `preferred` if it makes this content, else the first that does.

        Raises:
            ModelNotFound: no model makes this content.
            ModelRejected: `preferred` would make it, but was rejected; another one must not answer in its place.
        """
        record = self.models.get(preferred)
        if record is not None and self._content(record) in (content, None):
            return self.find(preferred).name
        names = [n for n, r in self.models.items() if r.plugin is not None and r.plugin.content == content]
        if not names:
            raise ModelNotFound(f"no model that makes {content} is served; see /v1/models and /v1/plugins")
        return names[0]

    def _content(self, record: ModelRecord) -> str | None:
        """What a model makes, or would make; None when that cannot be known."""
        plugin = self.plugins.get(record.plugin_name)
        return plugin.plugin.content if plugin and plugin.plugin else None


def _discover() -> Iterator[PluginRecord]:
    seen: dict[str, PluginRecord] = {}
    for entry in metadata.entry_points(group=PLUGIN_GROUP):
        distribution = entry.dist.name if entry.dist else "unknown"
        version = entry.dist.version if entry.dist else "unknown"
        record = PluginRecord(entry.name, distribution, version)
        try:
            if entry.name in seen:
                raise PluginInvalid(
                    f"the name {entry.name!r} is taken by the distributions {seen[entry.name].distribution} and "
                    f"{distribution}; uninstall one of them"
                )
            plugin = _check(entry.name, entry.load())
            record = PluginRecord(entry.name, distribution, version, plugin)
        except Exception as error:
            record = PluginRecord(entry.name, distribution, version, reason=_reason(error))
        seen[entry.name] = record
    yield from seen.values()


def _check(name: str, loaded: object) -> type[AnyPlugin]:
    """Hold a plugin's class against the contract; what cannot be seen from the class shows at warm-up."""
    if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
        raise PluginInvalid(f"entry point {name!r}: expected a subclass of brigantine.Plugin, got {loaded!r}")
    plugin = cast("type[AnyPlugin]", loaded)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name) or getattr(plugin, "name", None) != name:
        raise PluginInvalid(
            f"entry point {name!r}: expected a slug equal to {plugin.__qualname__}.name, "
            f"which is {getattr(plugin, 'name', None)!r}"
        )
    for attribute in ("content", "types"):
        if not getattr(plugin, attribute, None):
            raise PluginInvalid(f"{plugin.__qualname__}.{attribute}: expected a value, got none")
    _check_params(plugin)
    return plugin


def _check_params(plugin: type[AnyPlugin]) -> None:
    params = getattr(plugin, "params", None)
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise PluginInvalid(
            f"{plugin.__qualname__}.params: expected a subclass of brigantine.Params, got {params!r}"
        )
    for field, info in params.model_fields.items():
        where = f"{params.__qualname__}.{field}"
        if field in RESERVED:
            raise PluginInvalid(f"{where}: the host owns the fields {', '.join(sorted(RESERVED))}; rename it")
        if info.is_required() or not info.description:
            raise PluginInvalid(f"{where}: expected a default and a description")


def _load(place: Found, plugins: dict[str, PluginRecord], settings: Settings) -> ModelRecord:
    plugin_name = ""
    try:
        plugin_name = read_manifest(place.path).plugin
        model = place.open()
        session = Session.open(model, settings.session(place.name), require_gpu=settings.require_gpu)
        if session.fell_back:
            log.warning(
                "model %s runs on the CPU: this ONNX Runtime has CUDA, but could not use it", place.name
            )
        plugin = _plugin_of(model, plugins)(model, session)
        _warm_up(plugin)
        invariant, tried = _invariant(plugin, min(settings.max_batch, model.manifest.max_batch))
    except Exception as error:
        return ModelRecord(place.name, place.source, reason=_reason(error), plugin_name=plugin_name)
    if not invariant:
        log.warning("model %s: a row's bits depend on its batch, so each row runs alone", place.name)
    return ModelRecord(
        place.name,
        place.source,
        model,
        plugin,
        plugin_name=plugin_name,
        invariant=invariant,
        tried_batch=tried,
    )


def _plugin_of(model: Model, plugins: dict[str, PluginRecord]) -> type[AnyPlugin]:
    record = plugins.get(model.manifest.plugin)
    if record is None:
        raise PluginNotFound(
            f"{model.name} needs the plugin {model.manifest.plugin!r}; installed are {', '.join(plugins) or 'none'}"
        )
    if record.plugin is None:
        raise PluginInvalid(f"its plugin {record.name!r} was rejected: {record.reason}")
    return record.plugin


def _warm_up(plugin: AnyPlugin) -> None:
    """Two rows of default Params through the whole journey: the contract test, and the first, slow run."""
    params = request_type(plugin.params, "WarmUp", max_n=2)()
    finished, _ = _finish(plugin, [prepare_row(plugin, params, seed) for seed in (0, 1)])
    for media_type in plugin.types:
        media = cast(object, plugin.render(finished, params, media_type))
        if not isinstance(media, Media) or media.type.partition(";")[0] != media_type:
            got = media.type if isinstance(media, Media) else repr(media)
            raise PluginInvalid(
                f"{plugin.name}: render() must return Media of the type asked, {media_type}; got {got}"
            )


def _finish(plugin: AnyPlugin, rows: Sequence[Arrays]) -> list[Arrays]:
    """Step all rows, prepared, until each is done."""
    states: dict[int, Any] = dict(enumerate(rows))
    done: dict[int, Arrays] = {}
    while states:
        stepped = plugin.step(list(states.values()))
        if len(stepped) != len(states):
            raise PluginInvalid(
                f"{plugin.name}: step() must return a state for each row, got {len(stepped)} for {len(states)}"
            )
        after = dict(zip(states, stepped, strict=True))
        done |= {index: state.row for index, state in after.items() if isinstance(state, Done)}
        states = {index: state for index, state in after.items() if not isinstance(state, Done)}
    return [done[index] for index in range(len(rows))]


def _invariant(plugin: AnyPlugin, max_batch: int) -> tuple[bool, int]:
    """Whether a row's bits are the same alone and in a batch, and the largest batch that was tried.

    Batches of 1, 2, 4 ... and the largest are tried, until a second has passed.
    """
    params = request_type(plugin.params, "WarmUp", max_n=1)()
    alone: list[Arrays] = []
    tried, begin = 0, time.perf_counter()
    for size in [*(1 << power for power in range((max_batch - 1).bit_length())), max_batch]:
        if tried >= 2 and time.perf_counter() - begin > _PATIENCE_S:
            break
        rows = [prepare_row(plugin, params, seed) for seed in range(size)]
        alone += [_finish(plugin, [row])[0] for row in rows[len(alone) :]]
        tried = size
        if not all(map(_same, _finish(plugin, rows), alone)):
            return False, tried
    return True, tried


def _same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BrigantineError) else f"{type(error).__name__}: {error}"
