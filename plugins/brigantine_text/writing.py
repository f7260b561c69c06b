"""A text on its way: what is wanted, and what has been made of it so far. Each step makes a new one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from brigantine import Arrays, Place
from numpy.typing import NDArray

from .sampling import Sampling, Wish, likeliest, log_softmax

__all__ = ["Scored", "Task", "Writing"]


class Task(NamedTuple):
    """What one row of a request wants."""

    prompt: tuple[int, ...]
    uniforms: NDArray[np.float64]
    """[max_tokens], from 0 to 1: one for each token, drawn from the row's seed."""
    stops: tuple[bytes, ...]
    sampling: Sampling
    logprobs: int
    """How many likeliest tokens are told beside each; under 0 for no log probabilities."""
    echo: bool

    @classmethod
    def of(cls, row: Arrays) -> Task:
        """Out of the arrays that `TextPlugin.prepare` made."""
        return cls(
            prompt=tuple(row["prompt"].tolist()),
            uniforms=row["uniforms"],
            stops=tuple(stop.encode() for stop in row["stop"].tolist()),
            sampling=Sampling(*(row[name].item() for name in Sampling._fields)),
            logprobs=row["logprobs"].item(),
            echo=row["echo"].item(),
        )

    @property
    def scores_prompt(self) -> bool:
        """Whether the log probabilities of the prompt are wanted, too: then all of it must be read."""
        return self.echo and self.logprobs >= 0


class Scored(NamedTuple):
    """A token with its log probability, and the likeliest ones in its place."""

    token: int
    logprob: float
    """Not a number for the first of all, which nothing comes before."""
    top: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, token: int, logits: NDArray[np.float32], count: int) -> Scored:
        """By the model's own distribution, `logits` [vocabulary], before any wish about sampling."""
        logprobs = log_softmax(logits)
        return cls(
            token,
            float(logprobs[token]),
            tuple((one, float(logprobs[one])) for one in likeliest(logprobs, count)),
        )


class Writing(NamedTuple):
    """The state of one row."""

    task: Task
    place: Place | None = None
    """Its place in the cache; None while all are taken."""
    cached: int = 0
    """Tokens of the prompt that were in the cache already."""
    read: int = 0
    """Tokens of the prompt that have been read."""
    tokens: tuple[int, ...] = ()
    """What has been made."""
    text: bytes = b""
    """What can be shown of it, in whole characters."""
    held: bytes = b""
    """What comes after that: part of a character, or the beginning of a stop."""
    scored: tuple[Scored, ...] = ()
    told: int = 0
    """Bytes of the text, and below tokens of `scored`, that were in parts."""
    told_scored: int = 0
    last: NDArray[np.float32] | None = None
    """The logits [vocabulary] behind what was read, where the prompt is scored."""

    @property
    def is_read(self) -> bool:
        """Whether the next token can be made."""
        return self.read == len(self.task.prompt)

    @property
    def is_full(self) -> bool:
        """Whether as many tokens are made as are wanted."""
        return len(self.tokens) == len(self.task.uniforms)

    @classmethod
    def begin(cls, task: Task, prompt: bytes) -> Writing:
        """Nothing is made yet; `prompt` is what its tokens stand for."""
        return cls(task, text=_characters(prompt) if task.echo else b"")

    @property
    def length(self) -> int:
        """Tokens before the last one."""
        return self.read + len(self.tokens) - 1

    @property
    def ahead(self) -> int:
        """How many tokens can be made before the text that they are has to be looked at."""
        task = self.task
        if task.stops or task.logprobs >= 0 or task.sampling.penalises:
            return 1
        return len(task.uniforms) - len(self.tokens)

    def wish(self, ahead: int = 0) -> Wish:
        """For the next token, or for one that comes some behind it; see `ahead`."""
        task = self.task
        return Wish(task.sampling, task.prompt, self.tokens, task.uniforms.item(len(self.tokens) + ahead))

    def has_read(self, logits: NDArray[np.float32]) -> Writing:
        """The next tokens of the prompt have been read, and gave logits [T, vocabulary]."""
        read = self.read + len(logits)
        if not self.task.scores_prompt:
            return self._replace(read=read)
        chunk = self.task.prompt[self.read : read]
        before: Sequence[NDArray[np.float32] | None] = [self.last, *logits[:-1]]
        scored = (
            Scored(token, math.nan, ()) if row is None else Scored.of(token, row, self.task.logprobs)
            for token, row in zip(chunk, before, strict=True)
        )
        return self._replace(read=read, scored=(*self.scored, *scored), last=logits[-1].copy())

    def has_made(
        self, tokens: Sequence[int], pieces: Sequence[bytes], logits: NDArray[np.float32]
    ) -> tuple[Writing, bool]:
        """Tokens have been chosen, the last one by `logits` [vocabulary]; and whether a stop ends the text now.

        Where there is more text to show, that and its tokens count as told.

        Args:
            tokens: one, or up to `ahead`.
            pieces: what these are.
            logits: of the last one.
        """
        scored, text, held, stopped = self.scored, self.text, self.held, False
        for piece in pieces:
            shown, held, stopped = _cut(held, piece, self.task.stops)
            text += shown
        if self.task.logprobs >= 0:
            scored = (*scored, Scored.of(tokens[-1], logits, self.task.logprobs))
        told_scored = len(scored) if len(text) > self.told else self.told_scored
        # Not `_replace`: it takes several times as long, and this is done for every token.
        made = Writing(
            self.task, self.place, self.cached, self.read, (*self.tokens, *tokens), text, held, scored, len(text),
            told_scored,
        )  # fmt: skip
        return made, stopped

    def whole(self) -> bytes:
        """All of the text, of which nothing more will come: but for a character that has only begun."""
        return self.text + _characters(self.held[: _whole(self.held)])


class _Cut(NamedTuple):
    """What a new piece makes of the text that is held back."""

    shown: bytes
    held: bytes
    stopped: bool


def _cut(held: bytes, piece: bytes, stops: Sequence[bytes]) -> _Cut:
    """What can be shown when `piece` comes behind `held`: all before a stop, else all that cannot belong to one."""
    if not held and not stops and piece.isascii():
        return _Cut(piece, b"", False)
    raw = held + piece
    found = [at for stop in stops if (at := raw.find(stop)) >= 0]
    if found:
        return _Cut(_characters(raw[: min(found)]), b"", True)
    end = min(_whole(raw), len(raw) - max((_begun(raw, stop) for stop in stops), default=0))
    return _Cut(_characters(raw[:end]), raw[end:], False)


def _whole(raw: bytes) -> int:
    """How many bytes of UTF-8 there are before a character that has only begun."""
    for back in range(1, min(4, len(raw) + 1)):
        byte = raw[-back]
        if byte & 0xC0 != 0x80:  # not the continuation of one
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(raw) - back if length > back else len(raw)
    return len(raw)


def _begun(raw: bytes, stop: bytes) -> int:
    """The length of the longest end of `raw` that a stop begins with."""
    return next((size for size in range(min(len(raw), len(stop) - 1), 0, -1) if raw.endswith(stop[:size])), 0)


def _characters(raw: bytes) -> bytes:
    """The same, with what is no UTF-8 replaced: a model may make any bytes."""
    return raw.decode("utf-8", "replace").encode()
