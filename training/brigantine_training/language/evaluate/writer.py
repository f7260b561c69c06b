"""Writer: an exported language model as the evaluation uses it, through the session that serves it."""

from __future__ import annotations

import json

import numpy as np
from brigantine.model import Model
from brigantine.session import Session, SessionOptions
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ...errors import ScoringError
from ..cache import Cache
from ..huggingface import CONFIG, TOKENIZER
from ..tokenizer import END_OF_TEXT

__all__ = ["Writer"]


class Writer:
    """Predicts and writes with the graph that the service runs.

    Args:
        model: a text model: graph, tokenizer.json and config.json.
        threads: CPU threads.

    Raises:
        ScoringError: it is no text model of this kind.
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        missing = {CONFIG, TOKENIZER} - set(model.manifest.files)
        if missing or "logits" not in {spec.name for spec in model.manifest.outputs}:
            raise ScoringError(
                f"{model.path}: expected a text model, with the output logits, {CONFIG} and {TOKENIZER}; got the files "
                f"{', '.join(model.manifest.files)}. Judge a model that `brigantine-train export` wrote."
            )
        self.tokenizer = Tokenizer.from_file(str(model.path / TOKENIZER))
        self.context = int(
            json.loads((model.path / CONFIG).read_text(encoding="utf-8"))["max_position_embeddings"]
        )
        token = self.tokenizer.token_to_id(END_OF_TEXT)
        if token is None:
            raise ScoringError(f"{model.path / TOKENIZER}: expected a token {END_OF_TEXT}, found none")
        self.end_of_text = token
        self._rows = model.manifest.max_batch
        # The CPU even beside a GPU: the same model must score the same figures everywhere.
        self._session = Session.open(model, SessionOptions(device="cpu", intra_threads=threads))

    def predict(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """ids [N, T] -> logits [N, T, vocabulary] of what follows each."""
        return Cache(self._session, len(ids)).run(ids)

    def write(self, characters: int, seed: int) -> list[str]:
        """Pieces of text written from nothing, each to the end of the context or its own; any token may be drawn.

        Args:
            characters: so many in all; the last piece is cut there.
            seed: the same one gives the same pieces.
        """
        rng = np.random.default_rng(seed)
        pieces: list[str] = []
        while (missing := characters - sum(map(len, pieces))) > 0:
            for row in self.draw_rows(rng):
                pieces.append(self.text(row)[:missing])
                missing -= len(pieces[-1])
                if missing == 0:
                    break
        return pieces

    def draw_rows(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """As many texts as the model takes at once, token by token: [N, context - 1]."""
        cache = Cache(self._session, self._rows)
        ids = np.full((self._rows, 1), self.end_of_text)  # [N, tokens so far]
        while ids.shape[1] < self.context:
            logits = cache.run(ids[:, -1:])[:, -1].astype(np.float64)  # [N, V]
            drawn = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # a draw from the softmax
            ids = np.concatenate([ids, drawn[:, None]], 1)
        return ids[:, 1:]

    def text(self, ids: NDArray[np.int64]) -> str:
        """ids [T] up to the end of the text in words."""
        ended = np.flatnonzero(ids == self.end_of_text)
        return self.tokenizer.decode(ids[: ended[0] if len(ended) else None].tolist())
