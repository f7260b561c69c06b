"""Family: one kind of model that can be trained. Loop, run folder and command line are the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from brigantine.model import Model
from rich.console import Console
from torch import Tensor

from .config import Config
from .data import Data
from .runtime import Runtime

__all__ = ["Draws", "Family", "Figures", "Trainer"]

C = TypeVar("C", bound=Config)
D = TypeVar("D", bound=Data)


class Figures(NamedTuple):
    """What a trainer measured since it was last asked."""

    values: dict[str, float]
    words: str
    """The most important of them, for somebody who looks on."""


class Draws(NamedTuple):
    """How much an evaluation generates; None is the family's own number."""

    samples: int | None = None
    """Images, or characters, of one draw."""
    resamples: int = 3
    """Draws, each of its own seed; the intervals are over them."""


class Trainer(Protocol):
    """Takes training steps. Knows no clock, no budget and no file; its state is all that a resumed run needs."""

    steps: int

    def step(self, progress: float) -> None:
        """One update; progress: 0..1 of the budget, by which the rates are planned."""
        ...

    def take_figures(self, seconds: float) -> Figures:
        """Means since the last call, `seconds` ago.

        Raises:
            DivergedError: one of them is not finite.
        """
        ...

    def check_finite(self) -> None:
        """Look at the averaged weights, which are what a checkpoint is kept for.

        Raises:
            DivergedError: one of them is not finite.
        """
        ...

    def draw_samples(self) -> Tensor | str:
        """What the averaged network makes now: images [N, C, H, W], 0..1, or a text."""
        ...

    def counts(self) -> dict[str, int]:
        """What the record of the run counts, by name."""
        ...

    def shape(self) -> dict[str, Any]:
        """What a checkpoint says, beside the configuration, of the network that can be built from it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        ...


@dataclass(frozen=True)
class Family(Generic[C, D]):
    """What differs between the kinds of model, as functions."""

    open_data: Callable[[str, Path], D]
    """The data set of a name, out of `--data-dir`."""
    describe: Callable[[C], str]
    """The networks, in words."""
    trainer: Callable[[C, D, Runtime], Trainer]
    export: Callable[[Path, D, bool], Model]
    """A run's averaged network as RUN/model, not judged yet; or, where the last is True, one with 8-bit weights."""
    evaluate: Callable[[Model, D, Console, Draws], Model]
    """The model with new scores in its manifest; the report is printed, nothing is written."""
    write_card: Callable[[Model], None]
