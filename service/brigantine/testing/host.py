"""A host: the real engine, scheduler and station around a plugin, in this process and without HTTP."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from ..engine import Engine
from ..media import Media
from ..model import Model
from ..plugin import Plugin
from ..registry import ModelRecord, Registry
from ..session import Session
from ..settings import Settings
from ..warmup import warm_up

__all__ = ["Host"]

_MAX_BATCH = 4


class Host:
    """Makes requests as the service does. `close` it."""

    def __init__(self) -> None:
        self._settings = Settings(threads=1, max_batch=_MAX_BATCH, metrics=False)
        self._engines: dict[tuple[type[Plugin[Any]], Path], Engine] = {}
        self._loop = asyncio.new_event_loop()
        # A thread of its own, so that a test may have a loop of its own.
        self._thread = threading.Thread(target=self._loop.run_forever, name="host", daemon=True)
        self._thread.start()

    def generate(
        self,
        plugin: type[Plugin[Any]],
        model: Model | Path | str,
        media_type: str | None = None,
        /,
        **body: Any,
    ) -> list[Media]:
        """What a request with `body` becomes: one Media for each of its `n` rows.

        Args:
            plugin: what serves the model. One that asks for a process of its own runs in a thread here.
            model: a folder, or one that is open.
            media_type: one of the plugin's; None for its default.
            body: its Params, with the host's `n` and `seed`.

        Raises:
            BrigantineError: what a client of the service would be told.
        """
        opened = model if isinstance(model, Model) else Model.open(Path(model))
        engine = self._engines.get((plugin, opened.path))
        if engine is None:
            engine = self._engines[plugin, opened.path] = self._start(plugin, opened)
        made = asyncio.run_coroutine_threadsafe(engine.generate(opened.name, body, media_type), self._loop)
        return list(made.result().media)

    def close(self) -> None:
        """End all that was started."""
        for engine in self._engines.values():
            engine.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, plugin: type[Plugin[Any]], model: Model) -> Engine:
        loaded = plugin(model, Session.open(model))
        facts = warm_up(loaded, _MAX_BATCH)
        record = ModelRecord(model.name, model.source, model, plugin, facts, loaded)
        return Engine(Registry({}, {model.name: record}), self._settings)
