"""The averaged network, which is the one that is sampled, judged and exported."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class Ema(Generic[N]):
    """An exponential moving average of a generator's weights and of its batch-norm statistics."""

    def __init__(self, generator: N, decay: float) -> None:
        self.generator = copy.deepcopy(generator).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, generator: N) -> None:
        """Take one step towards `generator`. Early on the memory is short, or the average would be mostly the start."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        source = generator.state_dict()
        for name, average in self.generator.state_dict().items():
            if average.is_floating_point():
                average.lerp_(source[name], 1 - decay)
            else:
                average.copy_(source[name])

    def state_dict(self) -> dict[str, object]:
        return {"generator": self.generator.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict) -> None:
        self.generator.load_state_dict(state["generator"])
        self._updates = state["updates"]
