"""The product without HTTP, as a worker like its peers (see `peers/text_worker.py`):

    python text_inside.py FOLDER [THREADS]

It tells how many tokens each text has, and not which: these the product gives on request only, which costs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from brigantine.engine import Engine
from brigantine.settings import Settings
from peers.text_worker import Writer, serve


def load(folder: Path, threads: int = 1) -> tuple[Engine, Writer]:
    os.environ["BRIGANTINE_MODELS_DIR"] = str(folder.parent)
    os.environ["BRIGANTINE_MODEL_OPTIONS"] = json.dumps({folder.name: {"intra_threads": threads}})
    engine = Engine.start(Settings.read(), only=folder.name)
    gc.collect()
    gc.freeze()  # as the service does
    loop = asyncio.new_event_loop()

    def write(prompt: Sequence[int], most: int) -> list[int]:
        body = {"prompt": list(prompt), "max_tokens": most, "temperature": 0.0}
        made = loop.run_until_complete(engine.generate(folder.name, body))
        return list(range(made.media[0].info["usage"]["completion_tokens"]))

    return engine, write


if __name__ == "__main__":
    started, writer = load(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    serve(writer, {})
    started.close()
