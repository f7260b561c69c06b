"""The registry: the plugins that were found, and the models that they serve.

A plugin or a model that fails is rejected with its reason; the others serve.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .discovery import AnyPlugin, PluginRecord, discover, plural_of, reason_of, within
from .errors import ModelNotFound, ModelRejected, NotFound, PluginInvalid, PluginNotFound
from .model import Model, read_manifest
from .process import ProcessLane, ProcessSpec
from .session import Session
from .settings import Settings
from .store import Found, Store
from .warmup import Facts, warm_up

__all__ = ["ModelRecord", "Registry"]

log = logging.getLogger(__name__)


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
        models = {name: _load(place, plugins, settings) for name, place in wanted.items()}
        registry = cls({name: _judged(record, models) for name, record in plugins.items()}, models)
        disabled = {name for name, record in plugins.items() if record.disabled}
        refused = [model for model in models.values() if model.plugin_name not in disabled]
        rejected = [record for record in (*plugins.values(), *refused) if record.state == "rejected"]
        for record in rejected:
            log.error("%s %r rejected: %s", type(record).__name__, record.name, record.reason)
        if rejected and settings.strict:
            registry.close()
            raise PluginInvalid("; ".join(f"{record.name}: {record.reason}" for record in rejected))
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
            routes = ", ".join(f"/v1/{one}/generations" for one in self._contents) or "none"
            raise NotFound(f"no plugin that is installed makes {plural[:80]!r}; expected one of {routes}")
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
            raise ModelNotFound(f"no model that makes {content} is served; see /v1/models and /v1/plugins")
        return names[0]

    def _may_make(self, record: ModelRecord, content: str, alone: bool) -> bool:
        """Whether a model makes, or would make, this content; where its plugin is missing, whether no other does."""
        plugin = self.plugins.get(record.plugin_name)
        if plugin and plugin.plugin:
            return plugin.plugin.content == content
        return alone or not record.plugin_name


def _judged(record: PluginRecord, models: Mapping[str, ModelRecord]) -> PluginRecord:
    """The record, rejected when it has models and none of them can be served."""
    mine = [model for model in models.values() if model.plugin_name == record.name]
    if record.reason or not mine or any(model.loaded for model in mine):
        return record
    return replace(record, reason="; ".join(f"{model.name}: {model.reason}" for model in mine))


def _load(place: Found, plugins: dict[str, PluginRecord], settings: Settings) -> ModelRecord:
    plugin_name = ""
    try:
        plugin_name = read_manifest(place.path).plugin
        model = place.open()
        found = _plugin_of(model, plugins)
        assert found.plugin is not None, "`_plugin_of` raises for one that was refused"
        start = _start_process if _is_isolated(found, settings) else _start_here
        loaded, facts = start(place, model, found, settings)
    except Exception as error:
        return ModelRecord(place.name, place.source, reason=reason_of(error), plugin_name=plugin_name)
    if facts.fell_back:
        log.warning("model %s runs on the CPU: this ONNX Runtime has CUDA, but could not use it", place.name)
    if not facts.invariant:
        log.warning("model %s: a row's bits depend on its batch, so each row runs alone", place.name)
    return ModelRecord(place.name, place.source, model, found.plugin, facts, loaded, plugin_name=plugin_name)


def _is_isolated(found: PluginRecord, settings: Settings) -> bool:
    asks = found.plugin is not None and found.plugin.isolation == "process"
    return asks or found.name in settings.isolate


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
