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
alone: its neighbours in a batch can never change it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from .media import Media
from .model import Arrays, Model
from .session import Session

__all__ = ["Params", "Plugin"]


class Params(BaseModel):
    """What one request may ask for. Every field has a default and a description; bounds become the 422."""

    model_config = ConfigDict(frozen=True, extra="forbid")


P = TypeVar("P", bound=Params)


class Plugin(ABC, Generic[P]):
    """How one kind of content is made from a model. One instance serves one model."""

    name: ClassVar[str]
    """A slug; the same as the entry point's name in the group `brigantine.plugins`."""
    content: ClassVar[str]
    """What comes out: `image`, `text`, `audio`, or a new word."""
    types: ClassVar[tuple[str, ...]]
    """The MIME types that `render` can make, the default first."""
    params: ClassVar[type[Params]]
    """The class of this plugin's Params. Its fields may not be called model, n or seed: these are the host's."""

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

    @abstractmethod
    def render(self, row: Arrays, params: P, media_type: str) -> Media:
        """Turn one row into Media of `media_type`, one of `types`.

        `row` holds what `prepare` made and what `generate` returned for it, without the batch axis.
        """
