"""One who writes texts, in a process of its own: told on its standard input, a JSON object a line.

`{"prompts": [[token, ...], ...], "most": 240, "seconds": 2}` has it write greedily, one text after the other, for so
long; the answer has each text's tokens. Without `seconds` each prompt is written once. It is written against the
standard library alone, so that it runs in every environment.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

Writer = Callable[[Sequence[int], int], list[int]]
"""A prompt's tokens and the most that may follow: those that follow."""


def serve(write: Writer, versions: Mapping[str, str]) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    write([1, 2, 3], 4)
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_written(write, **json.loads(line))), file=answers, flush=True)


def _written(
    write: Writer, prompts: Sequence[Sequence[int]], most: int, seconds: float | None = None
) -> dict[str, object]:
    texts: list[list[int]] = []
    gc.collect()
    begin = time.perf_counter()
    for prompt in itertools.cycle(prompts):
        texts.append(write(prompt, most))
        if seconds is None and len(texts) == len(prompts):
            break
        if seconds is not None and time.perf_counter() - begin > seconds:
            break
    return {"texts": texts, "seconds": time.perf_counter() - begin}
