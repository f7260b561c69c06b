"""A trial of a language model: what it predicts step by step, in the cache that will serve it, against the whole.

A prompt is read in chunks, and goes on a token at a time beside prompts of other lengths. The same logits are expected
as of the whole text at once: from the network, where the graph was made of one here, else from the graph itself. A
graph that counts its positions, hides padding or appends to its cache in another way than the service is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .decoder import CHUNK, Decoder
from .errors import BrigantineError, ModelInvalid
from .model import Model
from .session import Session, SessionOptions
from .slots import Place

__all__ = ["LONGEST_WINDOW", "Network", "tried"]

Network = Callable[[Sequence[int]], NDArray[np.float32]]
"""T tokens in, logits [T, vocabulary] out, of the whole text at once."""

_LENGTHS = (1, 9, CHUNK + 8, 2 * CHUNK + 6)
"""Tokens of the prompts."""
_STEPS = 2
"""Tokens that each goes on by, beside the others."""
LONGEST_WINDOW = 1024
"""The longest window of attention that a prompt is made for, which reaches over it."""
_MOST_ERROR = 1e-4
"""Of a graph that was made here: the most by which a logit may differ from the network's, as a share of the largest, or
of 1."""
_MOST_DOUBT = 0.02
"""Of any other, which may compute in float16 or in 8 bits: as a share of the range of its logits."""


class _Row(NamedTuple):
    """A text, and what is expected of it."""

    tokens: list[int]
    prompt: int
    """How many of these are its prompt."""
    expected: NDArray[np.float32]
    """[tokens, vocabulary]"""


def tried(path: Path, model: Model, context: int, window: int, network: Network | None) -> dict[str, float]:
    """Run the model; gives the largest difference in a logit for each shape, "batch x sequence + past".

    Args:
        path: what is imported.
        model: its graph.
        context: the most tokens that it reads.
        window: the most that a token sees of those before it; 0 for all.
        network: what the graph was made of.

    Raises:
        ModelInvalid: it cannot be run, or predicts something else.
    """
    session = Session.open(model, SessionOptions(device="cpu"))
    try:
        decoder = Decoder(session, context)
        expects = network or decoder.read_at_once
        rows = [_row(length, decoder.vocabulary, expects) for length in _lengths(decoder.context, window)]
        parity = _compare(decoder, rows)
    except BrigantineError:
        raise
    except Exception as error:  # whatever ONNX Runtime raises
        raise ModelInvalid(
            f"{path}: expected a graph that reads any number of tokens behind any number of others, got {error}; "
            "export it with a dynamic batch, sequence and past"
        ) from error
    peaks = [np.abs(row.expected).max() for row in rows]
    spans = [row.expected.max() - row.expected.min() for row in rows]
    most = _MOST_ERROR * max(1, *peaks) if network else _MOST_DOUBT * float(max(spans))
    for shape, error in parity.items():
        if not error <= most:  # NaN is a difference too
            raise ModelInvalid(
                f"{path}: expected logits as {'the network makes' if network else 'of the whole text at once'}, within "
                f"{most:.2g}, got a difference of {error:.2g} for {shape} (batch x sequence + past); "
                f"{'upgrade' if network else 'export it again with'} "
                f"{'torch, onnxscript and transformers' if network else 'attention_mask and position_ids as inputs'}"
            )
    return parity


def _lengths(context: int, window: int) -> list[int]:
    reaching = (window + CHUNK + 8,) if 0 < window <= LONGEST_WINDOW else ()
    return sorted({max(1, min(length, context - _STEPS)) for length in (*_LENGTHS, *reaching)})


def _row(length: int, vocabulary: int, expects: Network) -> _Row:
    tokens = np.random.default_rng(length).integers(0, vocabulary, length + _STEPS).tolist()
    return _Row(tokens, length, np.asarray(expects(tokens), np.float32))


def _compare(decoder: Decoder, rows: Sequence[_Row]) -> dict[str, float]:
    """The largest differences: of each prompt that is read, and of all that go on together."""
    parity: dict[str, float] = {}
    places: list[Place] = []
    for row in rows:
        found = decoder.place(row.tokens[: row.prompt], reuse=False)
        if found is None:  # the cache holds fewer
            break
        places.append(found[0])
        for start in range(0, row.prompt, CHUNK):
            logits = decoder.read(found[0], row.tokens[: row.prompt], start)  # [T, vocabulary]
            _note(parity, f"1x{len(logits)}+{start}", logits, row.expected[start : start + len(logits)])
    together = rows[: len(places)]
    for step in range(_STEPS):
        pasts = [row.prompt + step for row in together]
        logits = decoder.decode(
            places, [row.tokens[past] for row, past in zip(together, pasts, strict=True)], pasts
        )
        expected = np.stack([row.expected[past] for row, past in zip(together, pasts, strict=True)])
        _note(parity, f"{len(together)}x1+{pasts[0]}..{pasts[-1]}", logits, expected)
    return parity


def _note(
    parity: dict[str, float], shape: str, made: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    parity[shape] = max(parity.get(shape, 0.0), float(np.abs(made - expected).max()))
