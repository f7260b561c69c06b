"""The registry: the plugins that were found, and the models that they serve.

A plugin or a model that fails is rejected with its reason; the others serve.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from .contract import plural_of
from .discovery import AnyPlugin, PluginRecord, discover, reason_of, within
from .errors import ModelNotFound, ModelRejected, NotFound, PluginInvalid, PluginNotFound
from .model import Model, read_manifest
from .process import ProcessLane, ProcessSpec
from .session import Session
from .settings import Settings
from .store import Found, Store
from .warmup import Facts, warm_up

__all__ = ["ModelRecord", "Registry", "isolation_of"]

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Models that are loaded beside each other: one that waits for something must not hold up the others."""


@dataclass(frozen=True)
class ModelRecord:
    """One model that was found: served by its plugin, or rejected with a reason."""

    name: str
    source: str
    model: Model | None = None
    plugin: type[AnyPlugin] | None = None
    facts: Facts | None = None
    loaded: AnyPlugin | ProcessLane | None = None
    """The plugin with its model, or the process that has them."""
    reason: str = ""
    plugin_name: str = ""
    """What its manifest says; empty when the manifest cannot be read."""

    @property
    def state(self) -> Literal["serving", "rejected"]:
        return "serving" if self.loaded else "rejected"


class Registry:
    """All plugins and all models of this process. `close` it: some models may have a process."""

    def __init__(self, plugins: dict[str, PluginRecord], models: dict[str, ModelRecord]) -> None:
        self.plugins = plugins
        self.models = models
        self._contents = {
            plural_of(record.plugin): record.plugin.content for record in plugins.values() if record.plugin
        }

    @classmethod
    def load(cls, settings: Settings, only: str | None = None) -> Registry:
        """Discover, check, load and warm up everything; or, with `only`, the model of that name.

        Raises:
            PluginInvalid: something was rejected and `settings.strict` is on.
            ModelNotFound: there is no model called `only`.
        """
        plugins = discover(settings)
        store = Store(settings.models_dir, settings.plugins_dir)
        wanted = store.find() if only is None else {only: store.get(only)}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            records = pool.map(partial(_load, plugins=plugins, settings=settings), wanted.values())
            models = dict(zip(wanted, records, strict=True))
        judge = _judged if only is None else _judged_by_its_models
        registry = cls({name: judge(record, models) for name, record in plugins.items()}, models)
        disabled = {name for name, record in plugins.items() if record.disabled}
        refused = [model for model in models.values() if model.plugin_name not in disabled]
        rejected = [record for record in (*plugins.values(), *refused) if record.state == "rejected"]
        if rejected and settings.strict:
            registry.close()
            raise PluginInvalid("; ".join(f"{record.name}: {record.reason}" for record in rejected))
        for record in rejected:
            what = "plugin" if isinstance(record, PluginRecord) else "model"
            log.error("%s %r rejected: %s", what, record.name, record.reason)
        return registry

    def close(self) -> None:
        """End the processes of isolated models."""
        for record in self.models.values():
            if isinstance(record.loaded, ProcessLane):
                record.loaded.close()

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
        if record.loaded is None:
            raise ModelRejected(f"model {name!r} is not served: {record.reason}")
        return record

    def content(self, plural: str) -> str:
        """The content whose route has this word.

        Raises:
            NotFound: no plugin makes such content.
        """
        if plural not in self._contents:
            raise NotFound(self._no_content(plural[:80]))
        return self._contents[plural]

    def default(self, content: str, preferred: str) -> str:
        """The model of a request that names none: `preferred` if it makes this content, else the first that does.

        Raises:
            ModelNotFound: no model makes this content.
            ModelRejected: `preferred` would make it, but was rejected; another one must not answer in its place.
        """
        record = self.models.get(preferred)
        names = [n for n, r in self.models.items() if r.loaded and r.plugin and r.plugin.content == content]
        if record is not None and self._may_make(record, content, not names):
            return self.find(preferred).name
        if not names:
            makers = [one for one in self.plugins.values() if one.plugin and one.plugin.content == content]
            why = "; ".join(
                f"the plugin {one.name!r} is {one.state}: {one.reason}" for one in makers if one.reason
            )
            raise ModelNotFound(f"no model that makes {content} is served: {why or 'see /v1/plugins'}")
        return names[0]

    def _no_content(self, plural: str) -> str:
        """Why nothing is made under this word. What a plugin that was not imported would make nobody knows."""
        near = difflib.get_close_matches(plural, self._contents, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        routes = ", ".join(f"/v1/{one}/generations" for one in self._contents) or "none"
        unknown = {name: record for name, record in self.plugins.items() if record.plugin is None}
        named = difflib.get_close_matches(plural, unknown, 1)
        lost = [f"the plugin {name!r} is {unknown[name].state}: {unknown[name].reason}" for name in named]
        if not named and unknown:
            lost = [f"not in service are the plugins {', '.join(unknown)}, see /v1/plugins"]
        return "; ".join([f"no plugin in service makes {plural!r}{hint}", *lost, f"expected one of {routes}"])

    def _may_make(self, record: ModelRecord, content: str, alone: bool) -> bool:
        """Whether a model makes, or would make, this content; where its plugin is missing, whether no other does."""
        plugin = self.plugins.get(record.plugin_name)
        if plugin and plugin.plugin:
            return plugin.plugin.content == content
        return alone or not record.plugin_name


def _judged(record: PluginRecord, models: Mapping[str, ModelRecord]) -> PluginRecord:
    """The record, idle when it has no models, and rejected when none of them can be served."""
    if record.reason or any(model.plugin_name == record.name for model in models.values()):
        return _judged_by_its_models(record, models)
    where = record.origin.models_folder
    reason = (
        f'has no model: put one whose manifest has "plugin": "{record.name}" into {where or "BRIGANTINE_MODELS_DIR"}, '
        "or publish one"
    )
    return replace(record, reason=reason, idle=True)


def _judged_by_its_models(record: PluginRecord, models: Mapping[str, ModelRecord]) -> PluginRecord:
    """The record, rejected when it has models and none of them can be served."""
    mine = [model for model in models.values() if model.plugin_name == record.name]
    if record.reason or not mine or any(model.loaded for model in mine):
        return record
    return replace(record, reason="; ".join(f"{model.name}: {model.reason}" for model in mine))


def _load(place: Found, plugins: dict[str, PluginRecord], settings: Settings) -> ModelRecord:
    plugin_name, home = "", None
    try:
        plugin_name = read_manifest(place.path).plugin
        model = place.open()
        found = _plugin_of(model, plugins)
        home = found.origin.home
        assert found.plugin is not None, "`_plugin_of` raises for one that was refused"
        start = _start_process if isolation_of(found, settings) == "process" else _start_here
        loaded, facts = start(place, model, found, settings)
    except Exception as error:
        return ModelRecord(place.name, place.source, reason=reason_of(error, home), plugin_name=plugin_name)
    if facts.fell_back:
        log.warning("model %s runs on the CPU: this ONNX Runtime has CUDA, but could not use it", place.name)
    if not facts.invariant:
        log.warning("model %s: a row's bits depend on its batch, so each row runs alone", place.name)
    return ModelRecord(place.name, place.source, model, found.plugin, facts, loaded, plugin_name=plugin_name)


def isolation_of(found: PluginRecord, settings: Settings) -> Literal["thread", "process"]:
    """Where its models run: in the worker's threads, or each in a process of its own."""
    asks = found.plugin is not None and found.plugin.isolation == "process"
    return "process" if asks or found.name in settings.isolate else "thread"


def _start_here(
    place: Found, model: Model, found: PluginRecord, settings: Settings
) -> tuple[AnyPlugin, Facts]:
    def load() -> tuple[AnyPlugin, Facts]:
        session = Session.open(model, settings.session(place.name), require_gpu=settings.require_gpu)
        assert found.plugin is not None, "`_plugin_of` raises for one that was refused"
        plugin = found.plugin(model, session)
        return plugin, warm_up(plugin, settings.max_batch)

    return within(settings.load_timeout_s, f"loading {place.name} with the plugin {found.name}", load)


def _start_process(
    place: Found, model: Model, found: PluginRecord, settings: Settings
) -> tuple[ProcessLane, Facts]:
    spec = ProcessSpec(
        path=model.path,
        source=model.source,
        digest=model.digest,
        plugin=found.origin,
        options=settings.session(place.name),
        require_gpu=settings.require_gpu,
        max_n=settings.max_n,
        max_batch=settings.max_batch,
        load_timeout_s=settings.load_timeout_s,
        batch_timeout_s=settings.timeout_s,
    )
    lane = ProcessLane(spec)
    return lane, lane.facts


def _plugin_of(model: Model, plugins: dict[str, PluginRecord]) -> PluginRecord:
    record = plugins.get(model.manifest.plugin)
    if record is None:
        raise PluginNotFound(
            f"{model.name} needs the plugin {model.manifest.plugin!r}; installed are {', '.join(plugins) or 'none'}"
        )
    if record.plugin is None:
        raise PluginInvalid(f"its plugin {record.name!r} is {record.state}: {record.reason}")
    return record
