"""Likelihood: how many nats a model needs for each token of a text that it has not seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Predictor", "token_nats"]

Predictor = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""ids int64 [N, T] -> logits float32 [N, T, vocabulary]: of the token that follows each."""

_BATCH = 16
"""Windows at once."""


def token_nats(
    predict: Predictor, tokens: NDArray[np.int64], before: int, context: int
) -> NDArray[np.float64]:
    """Minus the log-likelihood of each token, float64 [tokens], in nats.

    The text is cut into windows of `context` tokens that do not overlap; each token is predicted once, from those
    before it in its window and the last one of the window before. So the model starts anew every `context` tokens.

    Args:
        predict: the model.
        tokens: of the text, [tokens].
        before: the token that stands before the text.
        context: tokens of a window.
    """
    seen = np.concatenate([[before], tokens[:-1]])  # [tokens]
    whole = len(tokens) // context * context
    windows = zip(seen[:whole].reshape(-1, context), tokens[:whole].reshape(-1, context), strict=True)
    pairs = [*windows]
    parts: list[NDArray[np.float64]] = []
    for start in range(0, len(pairs), _BATCH):
        ids, wanted = map(np.stack, zip(*pairs[start : start + _BATCH], strict=True))
        parts.append(_nats(predict(ids), wanted).ravel())
    if whole < len(tokens):
        parts.append(_nats(predict(seen[None, whole:]), tokens[None, whole:]).ravel())
    return np.concatenate(parts) if parts else np.empty(0)


def _nats(logits: NDArray[np.float32], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """logits [N, T, V], wanted [N, T] -> float64 [N, T]"""
    highest = logits.max(2, keepdims=True)
    total = np.log(np.exp(logits - highest, dtype=np.float64).sum(2)) + highest[..., 0]
    return total - np.take_along_axis(logits, wanted[..., None], 2)[..., 0]
