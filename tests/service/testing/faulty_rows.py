"""Plugins that break a rule about rows, steps or threads."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from brigantine import Arrays, Done, Media, Part, text, wav

from tests.service.testing.chimes import Chime, Rhyme, Verse
from tests.service.testing.fault import breaks


@breaks("load", says="no clapper")
class Unloadable(Chime):
    def load(self) -> None:
        raise FileNotFoundError("no clapper")


@breaks("inputs", "defaults", says="z as float32 [4], got z as float64 [4]")
class Wide(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        row = super().prepare(params, rng)
        return {**row, "z": row["z"].astype(np.float64)}


@breaks("inputs", "defaults", says="the inputs z, label, got z")
class Unlabelled(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        return {"z": super().prepare(params, rng)["z"]}


@breaks("inputs", "defaults", says="z as float32 [4], got z as float32 [5]")
class Long(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        return {**super().prepare(params, rng), "z": np.zeros(5, np.float32)}


@breaks("inputs", "defaults", says="named arrays, got ndarray")
class Nameless(Chime):
    def prepare(self, params: Any, rng: Any) -> Any:
        return super().prepare(params, rng)["z"]


@breaks("prepare-randomness", "seeds", says="a change in random or numpy.random")
class GlobalNumpy(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        return {**super().prepare(params, rng), "z": np.random.standard_normal(4).astype(np.float32)}


@breaks("prepare-randomness", says="a change in random or numpy.random")
class Seeding(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        random.seed(3)
        return super().prepare(params, rng)


@breaks("prepare-randomness", "seeds", says="another one")
class OwnGenerator(Chime):
    def load(self) -> None:
        self.rng = np.random.default_rng()

    def prepare(self, params: Any, rng: Any) -> Arrays:
        return super().prepare(params, self.rng)


@breaks("row-count", "batch-of-many", says="2 rows of wave for 2, got 1")
class Dropping(Chime):
    def generate(self, batch: Arrays) -> Arrays:
        return {name: values[:1] for name, values in super().generate(batch).items()}


@breaks("row-count", says="Bare.generate(): expected a dict of arrays, got ndarray; return {'wave': ...}")
class Bare(Chime):
    def generate(self, batch: Arrays) -> Any:
        return super().generate(batch)["wave"]


@breaks("row-count", says="a state for each of 2 rows, got 1")
class DroppingSteps(Rhyme):
    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        return super().step(states[:1])


@breaks("batch-of-many")
class Averaging(Chime):
    def generate(self, batch: Arrays) -> Arrays:
        wave = super().generate(batch)["wave"]
        return {"wave": wave - wave.mean(axis=0, keepdims=True) / 2}


@breaks("batch-of-many", says="same names and shapes")
class Shapely(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        return {**super().prepare(params, rng), "more": np.zeros(params.pitch)}

    def generate(self, batch: Arrays) -> Arrays:
        return super().generate({name: values for name, values in batch.items() if name != "more"})


@breaks("order", "batch-of-many")
class Sorting(Chime):
    def generate(self, batch: Arrays) -> Arrays:
        wave = super().generate(batch)["wave"]
        return {"wave": wave[np.argsort(wave[:, 0])]}


@breaks("seeds")
class Numbering(Chime):
    def load(self) -> None:
        self.number = itertools.count()

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return (
            text(str(next(self.number)))
            if media_type == "text/plain"
            else wav(row["wave"], next(self.number) + 1)
        )


@breaks("seeds", says="in another instance")
class Branded(Chime):
    brands = itertools.count(1)

    def load(self) -> None:
        self.brand = next(self.brands)

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return super().render(row, params.model_copy(update={"pitch": self.brand}), media_type)


@breaks("seeds", says="again in the same instance")
class Rolling(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return super().render(
            row, params.model_copy(update={"pitch": random.randint(0, 1_000_000)}), media_type
        )


@breaks("restart")
class Hashing(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return super().render(
            row, params.model_copy(update={"pitch": hash(params.voice) % 1_000_003}), media_type
        )


@breaks("threads")
class Shared(Chime):
    def generate(self, batch: Arrays) -> Arrays:
        self.batch = batch
        time.sleep(0.001)
        return super().generate(self.batch)


@breaks("steps-pure", says="a changed one")
class InPlace(Rhyme):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        return {**super().prepare(params, rng), "said": np.zeros(9, np.int64), "at": np.zeros(1, np.int64)}

    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        for state in states:
            state["said"][state["at"][0]] = state["noise"][state["at"][0]]
            state["at"] += 1
        return [Done(state) if state["at"][0] == state["words"] else state for state in states]


@breaks("steps-pure", "seeds", says="something else")
class Remembering(Rhyme):
    def load(self) -> None:
        self.steps = 0

    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        self.steps += 1
        verses = [Verse.of(state) for state in states]
        return [verse._replace(noise=(verse.noise + self.steps) % 8).longer() for verse in verses]


@breaks("parts", says="a whole that differs before that")
class Hasty(Rhyme):
    """Shows what it does not keep."""

    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        after = super().step(states)
        return [one if isinstance(one, Done) else Part(one, text("never ")) for one in after]


@breaks("parts", says="parts of the type text/x-verse")
class Misnamed(Rhyme):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return text("la la " + super().render(row, params, media_type).body.decode())

    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        after = super().step(states)
        first = [not isinstance(state, Verse) for state in states]
        shown = Media("text/x-verse", b"la la ")
        return [
            Part(one, shown) if begins and not isinstance(one, Done) else one
            for one, begins in zip(after, first, strict=True)
        ]


@breaks("steps-end", says="Done within 10,000 steps, got none")
class Endless(Rhyme):
    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        return states


@breaks("steps-end", says="Done within 10,000 steps, got none")
class EndlessAtMost(Rhyme):
    def step(self, states: Sequence[Any]) -> Sequence[Any]:
        after = super().step(states)
        return [state if Verse.of(state).left == 9 else one for state, one in zip(states, after, strict=True)]


@breaks("cancellation", says="KeyError")
class Forgetful(Rhyme):
    def leave(self, state: Any) -> None:
        raise KeyError("cache")


@breaks("cancellation", says="others, when their neighbour left after")
class Emptying(Rhyme):
    """What it has said lies in the plugin, by the noise of each row."""

    def load(self) -> None:
        self.suffix = "!"

    def leave(self, state: Any) -> None:
        self.suffix = ""

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return text(f"{row['said']}{self.suffix}")
