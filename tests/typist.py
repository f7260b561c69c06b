"""A plugin that types words which its seed picks, a token at each step: text in all that a route can meet.

It is copied into a folder of plugins, and so sees brigantine's public names only. Its tokens split a character, its
parts do not; what could be the beginning of a stop string is held back. A prompt with `boom` fails at the third token.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from brigantine import Arrays, Done, Media, Params, Part, Plugin
from brigantine.errors import BadParams, FieldError
from pydantic import Field

Short = Annotated[str, Field(max_length=200)]
TOKENS = [b"ha", b" ", b"ho", b"\xf0\x9f", b"\x99\x82", "é".encode(), b"hum", b", "]
"""The fourth and the fifth are halves of a character: the fifth always follows the fourth, and nothing else."""


class TypistParams(Params):
    prompt: Short | Annotated[list[Annotated[int, Field(ge=0, le=7)]], Field(max_length=200)] = Field(
        "", description="What it goes on from."
    )
    messages: (
        Annotated[list[Annotated[dict[Short, Short], Field(max_length=2)]], Field(max_length=50)] | None
    ) = Field(None, description="What it goes on from, as a conversation.")
    max_tokens: Annotated[int, Field(ge=1, le=500)] | None = Field(
        16, description="The most tokens; null: 40."
    )
    temperature: float = Field(1.0, ge=0, le=2, description="0: always the first token.")
    stop: Short | Annotated[list[Short], Field(max_length=4)] = Field(
        default_factory=list[str], description="Where to end; not shown."
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = Field(None, description="How many others to name.")
    echo: bool = Field(False, description="Begin with the prompt.")
    pace_s: float = Field(0.0, ge=0, le=1, description="Seconds for each token.")


@dataclass(frozen=True)
class Typed:
    """How far a row is."""

    params: TypistParams
    picks: tuple[int, ...]
    body: bytes
    tokens: tuple[tuple[bytes, float | None], ...]
    begin: int
    """Bytes of the prompt, if it is shown."""
    made: int = 0
    shown: int = 0
    shown_tokens: int = 0

    def finish(self) -> str | None:
        """Why it is done, if it is."""
        if self.cut() is not None:
            return "stop"
        limit = 40 if self.params.max_tokens is None else self.params.max_tokens
        return "length" if self.made >= limit else None

    def stops(self) -> list[bytes]:
        stop = self.params.stop
        return [one.encode() for one in ([stop] if isinstance(stop, str) else stop)]

    def cut(self) -> int | None:
        """Where the first stop string begins."""
        places = [place for stop in self.stops() if (place := self.body.find(stop, self.begin)) >= 0]
        return min(places, default=None)

    def safe(self) -> int:
        """How many bytes are sure to be in the end: whole characters, and no beginning of a stop string."""
        whole = len(self.body.decode("utf-8", "ignore").encode())
        for stop in self.stops():
            for size in range(1, len(stop)):
                if self.body.endswith(stop[:size]):
                    whole = min(whole, len(self.body) - size)
        return max(whole, self.shown)


def typist_model(plugins_dir: Path, name: str = "prose") -> Path:
    """A folder of plugins with the typist in it, and a model for it."""
    from tests.tiny import tiny_model

    plugins_dir.mkdir(parents=True, exist_ok=True)
    (plugins_dir / "typist.py").write_text(Path(__file__).read_text())
    tiny_model(plugins_dir / "models", name, plugin="typist")
    return plugins_dir


def told(token: bytes, logprob: float | None, others: int) -> dict[str, Any]:
    one = {"token": token.decode("utf-8", "replace"), "bytes": [*token], "logprob": logprob}
    return {**one, "top": [{**one, "token": f"t{rank}", "logprob": -float(rank)} for rank in range(others)]}


class Typist(Plugin[TypistParams]):
    name = "typist"
    content = "text"
    types = ("text/plain",)
    takes_steps = True
    params = TypistParams

    def load(self) -> None:
        self.left: list[Any] = []
        self.steps = 0

    def prepare(self, params: TypistParams, rng: np.random.Generator) -> Arrays:
        if params.prompt == "refuse":
            raise BadParams([FieldError("prompt", "another one", "'refuse'")])
        picks = [0 if params.temperature == 0 else int(pick) for pick in rng.integers(0, len(TOKENS), 500)]
        state = np.empty((), dtype=object)
        state[()] = self._begun(params, picks)
        return {"state": state}

    def _begun(self, params: TypistParams, picks: list[int]) -> Typed:
        prompt = params.prompt
        if params.messages is not None:
            prompt = "".join(f"{one['role']}: {one['content']}\n" for one in params.messages)
        body = prompt.encode() if isinstance(prompt, str) else b"".join(TOKENS[one] for one in prompt)
        given = tuple((bytes([one]), None if not index else -0.5) for index, one in enumerate(body))
        shown = (body, given) if params.echo else (b"", ())
        whole: list[int] = []
        for pick in picks:
            whole += [3, 4] if pick in (3, 4) else [pick]
        return Typed(params, tuple(whole), *shown, begin=len(shown[0]))

    def step(self, states: Sequence[Any]) -> list[Any]:
        self.steps += 1
        rows = [state if isinstance(state, Typed) else state["state"].item() for state in states]
        time.sleep(max(row.params.pace_s for row in rows))
        return [self._typed(row) for row in rows]

    def _typed(self, row: Typed) -> Any:
        if row.made == 3 and "boom" in str(row.params.prompt):
            raise ValueError("the ribbon is torn")
        token = TOKENS[row.picks[row.made]]
        row = replace(row, body=row.body + token, tokens=(*row.tokens, (token, -1.5)), made=row.made + 1)
        if row.finish() is not None:
            state = np.empty((), dtype=object)
            state[()] = row
            return Done({"state": state})
        safe = row.safe()
        if safe == row.shown:
            return row
        ends = np.cumsum([len(one) for one, _ in row.tokens])
        tokens = int((ends <= safe).sum())
        info = self._logprobs(row, row.shown_tokens, tokens)
        part = Media("text/plain; charset=utf-8", row.body[row.shown : safe], info)
        return Part(replace(row, shown=safe, shown_tokens=tokens), part)

    def _logprobs(self, row: Typed, first: int, end: int) -> dict[str, Any]:
        others = row.params.logprobs
        return {} if others is None else {"logprobs": [told(*one, others) for one in row.tokens[first:end]]}

    def leave(self, state: Any) -> None:
        self.left.append(state)

    def render(self, row: Arrays, params: TypistParams, media_type: str) -> Media:
        typed: Typed = row["state"].item()
        cut = typed.cut()
        body = typed.body if cut is None else typed.body[:cut]
        prompt = (
            len(params.prompt) if params.messages is None else sum(len(m["content"]) for m in params.messages)
        )
        info = {
            "finish_reason": typed.finish(),
            "usage": {"prompt_tokens": prompt, "completion_tokens": typed.made, "cached_tokens": prompt // 2},
            **self._logprobs(typed, 0, len(typed.tokens)),
        }
        return Media("text/plain; charset=utf-8", body.decode("utf-8", "ignore").encode(), info)
