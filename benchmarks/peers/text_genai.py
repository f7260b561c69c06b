"""onnxruntime-genai's own generator: see `text_worker`.

`python text_genai.py FOLDER`, whose configuration says how many threads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata

import numpy as np
import onnxruntime_genai as og  # pyright: ignore[reportMissingImports]
from text_worker import Writer, serve


def load(folder: str) -> Writer:
    model = og.Model(folder)

    def write(prompt: Sequence[int], most: int) -> list[int]:
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(prompt) + most, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(np.asarray([prompt], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)[len(prompt) :]]

    return write


serve(load(sys.argv[1]), {name: metadata.version(name) for name in ("onnxruntime-genai", "onnxruntime")})
