"""The contract of a plugin: how one kind of content is made.

    class Waves(Plugin[WavesParams]):
        name = "waves"                      # the entry point's name
        content = "audio"                   # what comes out
        types = ("audio/wav",)              # the media types it can render, the default first
        params = WavesParams                # what one request may ask for

        def prepare(self, params, rng): ... # one row of input arrays, all randomness drawn here
        def render(self, row, params, media_type): ...  # one finished Media

`prepare` and `render` see one row; `generate` sees the batch that the host has put together from many
rows of many requests, so nobody writes stacking code. A row's randomness comes from its own generator
alone: its neighbours in a batch can never change it. Content that is made in many steps overrides `step`
instead of `generate`: rows then join and leave the batch between steps.

All of these may run in several threads at once, each with rows of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, cast

import numpy as np
from pydantic import BaseModel, ConfigDict

from .errors import BrigantineError, GenerationFailed
from .media import Media
from .model import Arrays, Model
from .session import Session

__all__ = ["Done", "Params", "Part", "Plugin", "run_batch"]


class Params(BaseModel):
    """What one request may ask for. Every field has a default and a description; bounds become the 422."""

    model_config = ConfigDict(frozen=True, extra="forbid")


P = TypeVar("P", bound=Params)


class Done(NamedTuple):
    """What `step` returns for a row that needs no further one."""

    row: Arrays
    """The finished row, as `render` takes it."""


class Part(NamedTuple):
    """What `step` returns for a row that goes on, and of which something can be shown already."""

    state: Any
    """Its next state."""
    media: Media
    """What follows what was shown before. The parts of a row are the beginning of what `render` makes of it."""

    @staticmethod
    def state_of(made: Any) -> Any:
        """What `step` made of a row, but for what can be shown of it."""
        return made.state if isinstance(made, Part) else made


class Plugin(ABC, Generic[P]):
    """How one kind of content is made from a model. Each process that serves the model has an instance."""

    name: ClassVar[str]
    """A slug; the same as the entry point's name in the group `brigantine.plugins`."""
    content: ClassVar[str]
    """What comes out: `image`, `text`, `audio`, or a new word."""
    plural: ClassVar[str] = ""
    """The word in its route, `POST /v1/<plural>/generations`; empty means the plural of `content`."""
    types: ClassVar[tuple[str, ...]]
    """The MIME types that `render` can make, the default first."""
    isolation: ClassVar[Literal["thread", "process"]] = "thread"
    """`process`: the plugin and its models run beside the worker, in a process that may crash without it."""
    takes_steps: ClassVar[bool] = False
    """Whether its rows take many short steps. All of a worker's then run together, and others join them at any step."""
    params: ClassVar[type[Params]]
    """The class of this plugin's Params. Names of the host's fields, such as `n` and `seed`, are taken."""

    def __init__(self, model: Model, session: Session) -> None:
        self.model = model
        self.session = session
        self.load()

    def load(self) -> None:
        """Read what the plugin needs from `self.model` (a vocabulary, say). Called once, before anything else.

        Raise to say that this model cannot be served; the message becomes the reason in `/v1/plugins`.
        """

    @abstractmethod
    def prepare(self, params: P, rng: np.random.Generator) -> Arrays:
        """Make one row of input: arrays without the batch axis, named as the graph's inputs.

        Draw all randomness from `rng`, which belongs to this row. Raise `BadParams` for what the types of
        Params cannot express.
        """

    def generate(self, batch: Arrays) -> Arrays:
        """Run the model on a batch [N, ...]; every output must have N rows, in the order of the input."""
        return self.session.run(batch)

    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        """Take every running row one step further; here the only one, which is `generate`.

        Override it for content that is made in many steps.

        Args:
            states: for each running row what `prepare` made, or what the last step returned for it. Do not change
                one: after an exception the step is run again with fewer of them, to find the row that causes it.

        Returns:
            In the same order, for each row its next state, as it is or in a `Part`, or `Done` with the finished row.
        """
        return [Done(row) for row in run_batch(self.generate, states)]

    def leave(self, state: Any) -> None:
        """Give back what the state of a row holds that leaves before it is done: nobody waits for it any more."""

    @abstractmethod
    def render(self, row: Arrays, params: P, media_type: str) -> Media:
        """Turn one row into Media of `media_type`, one of `types`.

        `row` holds what `prepare` made and what `generate` returned for it, without the batch axis.
        """


def run_batch(generate: Callable[[Arrays], Arrays], rows: Sequence[Arrays]) -> list[Arrays]:
    """Stack rows to a batch [N, ...], generate, and split the result; each row keeps its input beside its output.

    Raises:
        GenerationFailed: the rows do not stack, `generate` raised something that is not ours, or an output does not
            have as many rows as the input.
    """
    try:
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}  # each [N, ...]
    except (KeyError, ValueError) as error:
        raise GenerationFailed(
            f"prepare() must give the same names and shapes for every row: {error}"
        ) from error
    try:
        outputs = generate(batch)
    except BrigantineError:
        raise
    except Exception as error:
        raise GenerationFailed(f"generate() raised {type(error).__name__}: {error}") from error
    if not isinstance(cast("object", outputs), Mapping):
        raise GenerationFailed(
            f"generate() must return named arrays, got {type(outputs).__name__}; return {{'name': array}}, or what "
            "self.session.run returns"
        )
    for name, values in outputs.items():
        if len(values) != len(rows):
            raise GenerationFailed(
                f"generate() must return as many rows as it is given: {name} has {len(values)} for {len(rows)}; "
                "return one for each, in their order"
            )
    return [
        {**row, **{name: values[index] for name, values in outputs.items()}} for index, row in enumerate(rows)
    ]
