"""The text plugin: a prompt in, tokens out, one at a time, many texts together.

It serves every model whose graph keeps a cache (see `brigantine.Decoder`) and whose folder has Hugging Face's
`tokenizer.json` and `config.json`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from brigantine import Arrays, BadParams, Decoder, Done, FieldError, Media, Part, Place, Plugin
from numpy.typing import NDArray

from .params import TextParams
from .sampling import Sampling, choose
from .tokens import Vocabulary
from .writing import Scored, Task, Writing

__all__ = ["TextPlugin"]

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "context_length")
_TYPE = "text/plain; charset=utf-8"
_STEP_TOKENS = 32
"""Tokens of prompts that are read in one step beside the texts that go on: as much work as a step of these."""
_BURST_S = 0.004
"""After which a step makes no further tokens: what is done between two steps takes a third of the time of a token of a
small model, and hardly more for several tokens than for one. Who joins waits so long at most, and a token more."""
_SPELLED = 4096
"""Tokens of which is kept how they are told: that is most of what a log probability takes."""


class TextPlugin(Plugin[TextParams]):
    """Writes one text for each row, a token in each step, or some in a short one."""

    name = "text"
    content = "text"
    types = ("text/plain",)
    takes_steps = True
    params = TextParams

    def load(self) -> None:
        """Read the tokenizer, the context and the tokens that end a text, and make the cache.

        Raises:
            ValueError: a file is missing, or says nothing of the context.
            ModelInvalid: the graph is no language model with a cache, or the cache may not be large enough for it.
        """
        self.vocabulary = Vocabulary(self.model.path)
        facts = _facts(self.model.path)
        context = next((facts[key] for key in _CONTEXT_KEYS if isinstance(facts.get(key), int)), None)
        if context is None:
            raise ValueError(
                f"{self.model.path / 'config.json'}: expected one of {', '.join(_CONTEXT_KEYS)}, found none; say how "
                "many tokens the model reads"
            )
        self.decoder = Decoder(self.session, context)
        self.context = self.decoder.context
        self.ends = frozenset(_listed(facts.get("eos_token_id")))
        self.begin = _listed(facts.get("bos_token_id")) or _listed(facts.get("eos_token_id"))
        nameless = self.decoder.vocabulary - len(self.vocabulary.pieces)
        self.pieces = [*self.vocabulary.pieces, *[b""] * nameless]
        """What each token that the graph knows stands for; its vocabulary may be padded."""
        self._spelled = lru_cache(_SPELLED)(partial(_spelled, self.pieces))

    def prepare(self, params: TextParams, rng: np.random.Generator) -> Arrays:
        """The prompt's tokens, and all random numbers of the text."""
        prompt = self._prompt(params)
        room = self.context - len(prompt)
        most = room if params.max_tokens is None else params.max_tokens
        fewest = min(most, 1) if params.max_tokens is not None else 1
        if room < fewest:
            field = "prompt" if params.messages is None else "messages"
            fits = f"at most {self.context - fewest} tokens, for a context of {self.context}"
            expected = f"{fits}; shorten it by {fewest - room}"
            raise BadParams([FieldError(field, expected, f"{len(prompt)} tokens")])
        if room < most:
            expected = f"at most {room}, for a context of {self.context} tokens, {len(prompt)} in the prompt"
            raise BadParams([FieldError("max_tokens", expected, str(params.max_tokens))])
        stops = [params.stop] if isinstance(params.stop, str) else params.stop
        return {
            "prompt": np.asarray(prompt, np.int64),
            "uniforms": rng.random(most),
            "stop": np.asarray(stops, np.str_),
            "logprobs": np.asarray(-1 if params.logprobs is None else params.logprobs),
            "echo": np.asarray(params.echo),
            **{name: np.asarray(getattr(params, name)) for name in Sampling._fields},
        }

    def step(self, states: Sequence[Arrays | Writing]) -> Sequence[Writing | Part | Done]:
        """Every text that has been read goes on, and some of the prompts that have joined are read."""
        before = [one if isinstance(one, Writing) else self._begun(one) for one in states]
        if all(one.tokens for one in before):  # the usual step: nobody has a prompt that is to be read
            return self._continued(before)
        after, logits = self._advanced(before)
        wanted = [index for index in logits if not after[index].is_full]
        several = [logits[index] for index in wanted]
        chosen = choose(_stacked(several), [after[index].wish() for index in wanted]) if wanted else []
        tokens = {index: [token] for index, token in zip(wanted, chosen, strict=True)}
        return [
            self._made(one, logits[index], tokens.get(index, [])) if index in logits else one
            for index, one in enumerate(after)
        ]

    def render(self, row: Arrays, params: TextParams, media_type: str) -> Media:
        """The text, with what is told about it."""
        told: dict[str, Any] = {
            "finish_reason": str(row["finish"]),
            "usage": {
                name: int(row[name]) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
            },
        }
        if params.logprobs is not None:
            told["logprobs"] = json.loads(row["scored"].tobytes())
        return Media(_TYPE, row["text"].tobytes(), told)

    def _begun(self, row: Arrays) -> Writing:
        task = Task.of(row)
        return Writing.begin(task, self.vocabulary.decode(task.prompt) if task.echo else b"")

    def _continued(self, before: Sequence[Writing]) -> list[Writing | Part | Done]:
        """Each of them goes on by a token, or by several that can be made in a short time."""
        most = min(one.ahead for one in before)
        until = time.perf_counter() + _BURST_S
        is_greedy = all(one.task.sampling.is_greedy for one in before)
        made: list[list[int]] = []  # [steps, N]

        def following(logits: NDArray[np.float32]) -> list[int] | None:
            if is_greedy:  # which `choose` would find out for each token anew
                last: list[int] = logits.argmax(axis=1).tolist()
            else:
                last = choose(logits, [one.wish(len(made)) for one in before])
            made.append(last)
            ends = len(made) == most or time.perf_counter() > until or not self.ends.isdisjoint(last)
            return None if ends else last

        logits = self.decoder.go_on(*_ends(before), following)
        return [self._made(*one) for one in zip(before, logits, zip(*made, strict=True), strict=True)]

    def _advanced(self, writings: Sequence[Writing]) -> tuple[list[Writing], dict[int, NDArray[np.float32]]]:
        """All of them after one run, and the logits [vocabulary] of each that can have a token now, by its index."""
        after = list(writings)
        going = [index for index, one in enumerate(writings) if one.is_read]
        logits: dict[int, NDArray[np.float32]] = {}
        if going:
            made = self.decoder.decode(*_ends([writings[index] for index in going]))
            logits = dict(zip(going, made, strict=True))
        room = _STEP_TOKENS
        for index, one in enumerate(writings):
            if room <= 0:
                break
            if not one.is_read and (placed := self._placed(one)) is not None and placed.place is not None:
                chunk = self.decoder.read(placed.place, placed.task.prompt, placed.read)  # [T, vocabulary]
                room -= len(chunk)
                after[index] = placed.has_read(chunk)
                if after[index].is_read:
                    logits[index] = chunk[-1]
        return after, logits

    def _placed(self, one: Writing) -> Writing | None:
        """The same with a place in the cache; None while there is none."""
        if one.place is not None:
            return one
        found = self.decoder.place(one.task.prompt, reuse=not one.task.scores_prompt)
        if found is None:
            return None
        place, cached = found
        return one._replace(place=place, cached=cached, read=cached)

    def _made(
        self, one: Writing, logits: NDArray[np.float32], tokens: Sequence[int]
    ) -> Writing | Part | Done:
        """A text that goes on by these tokens; none where none is wanted at all."""
        if not tokens:
            return self._done(one, "length")
        after, stopped = one.has_made(tokens, [self.pieces[token] for token in tokens], logits)
        if stopped or tokens[-1] in self.ends:
            return self._done(after, "stop")
        if after.is_full:
            return self._done(after, "length")
        if after.told == one.told:
            return after
        info = {"logprobs": self._told(after.scored[one.told_scored :])} if after.task.logprobs >= 0 else {}
        return Part(after, Media(_TYPE, after.text[one.told :], info))

    def _done(self, one: Writing, finish: str) -> Done:
        scored = json.dumps(self._told(one.scored)).encode()
        return Done({
            "text": np.frombuffer(one.whole(), np.uint8),
            "scored": np.frombuffer(scored, np.uint8),
            "finish": np.asarray(finish),
            "prompt_tokens": np.asarray(len(one.task.prompt)),
            "completion_tokens": np.asarray(len(one.tokens)),
            "cached_tokens": np.asarray(one.cached),
        })  # fmt: skip

    def _told(self, scored: Sequence[Scored]) -> list[dict[str, Any]]:
        """Log probabilities as they are told: of each token, and of the likeliest in its place."""
        return [
            {
                **self._token(one.token, None if math.isnan(one.logprob) else one.logprob),
                "top": [self._token(token, logprob) for token, logprob in one.top],
            }
            for one in scored
        ]

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text, values = self._spelled(token)
        return {"token": text, "bytes": values, "logprob": logprob}

    def _prompt(self, params: TextParams) -> list[int]:
        """Its tokens; where there are none, the one that a text begins with.

        Raises:
            BadParams: there are two prompts, or one with tokens that the model does not have.
        """
        if params.messages is not None:
            if params.prompt:
                raise BadParams([FieldError("messages", "no prompt beside them", "both")])
            try:
                prompt = self.vocabulary.encode_chat([message.model_dump() for message in params.messages])
            except ValueError as error:
                raise BadParams([FieldError("messages", "what the model can be told", str(error))]) from error
        else:
            prompt = (
                self.vocabulary.encode(params.prompt) if isinstance(params.prompt, str) else params.prompt
            )
        if prompt and max(prompt) >= self.decoder.vocabulary:  # a tokenizer may have more than the graph, too
            field, expected = (
                "messages" if params.messages else "prompt",
                f"tokens under {self.decoder.vocabulary}",
            )
            raise BadParams([FieldError(field, expected, str(max(prompt)))])
        return prompt or self.begin[:1] or self.vocabulary.encode("\n")


def _ends(writings: Sequence[Writing]) -> tuple[list[Place], list[int], list[int]]:
    """Where each text lies, its last token, and how many come before that."""
    places = [one.place for one in writings if one.place is not None]
    return places, [one.tokens[-1] for one in writings], [one.length for one in writings]


def _spelled(pieces: Sequence[bytes], token: int) -> tuple[str, list[int]]:
    """A token as characters, as far as it is made of whole ones, and as bytes."""
    return pieces[token].decode("utf-8", "replace"), list(pieces[token])


def _stacked(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """[N, vocabulary] of N rows; of one row without a copy."""
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


def _facts(folder: Path) -> dict[str, Any]:
    """What Hugging Face's files say of the model; what is said of its generation counts more.

    Raises:
        ValueError: there is no `config.json`, or one is no JSON.
    """
    facts: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        file = folder / name
        if file.is_file():
            facts |= {key: value for key, value in json.loads(file.read_bytes()).items() if value is not None}
    if not facts:
        raise ValueError(f"{folder / 'config.json'}: expected the model's configuration, found none")
    return facts


def _listed(tokens: int | list[int] | None) -> list[int]:
    """One token or several."""
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else tokens
