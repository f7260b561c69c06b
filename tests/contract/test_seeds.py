"""The seed contract, for every model that ships: a row's bits are its own, whatever it is batched with."""

import numpy as np
import pytest
from brigantine import Arrays
from brigantine.registry import Registry
from brigantine.scheduler import run_batch
from brigantine.settings import Settings
from brigantine.store import Store

COMPOSITIONS = 500
SHIPPED = [name for name, found in Store().find().items() if found.source.startswith("plugin ")]


def test_a_model_ships():
    assert "mnist" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_500_random_companies_change_no_bit(name: str):
    plugin = Registry.load(Settings(), only=name).find(name).plugin
    assert plugin is not None
    rng = np.random.default_rng(0)
    pool = [
        plugin.prepare(plugin.params(), np.random.Generator(np.random.Philox(seed))) for seed in range(48)
    ]
    alone = [run_batch(plugin.generate, [row])[0] for row in pool]

    for _ in range(COMPOSITIONS):
        size = int(rng.integers(1, 33))
        chosen = rng.integers(len(pool), size=size)  # any order, neighbours may repeat
        together: list[Arrays] = run_batch(plugin.generate, [pool[index] for index in chosen])
        for index, row in zip(chosen, together, strict=True):
            assert all(np.array_equal(row[key], alone[index][key]) for key in row)
