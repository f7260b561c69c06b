"""The seed contract: a row's bits are its own, whatever it is batched with."""

import asyncio
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from brigantine import Arrays
from brigantine.engine import Engine
from brigantine.plugin import run_batch
from brigantine.registry import Registry
from brigantine.settings import Settings
from brigantine.store import Store

from tests.tiny import tiny_model

COMPOSITIONS = 500
SHIPPED = [name for name, found in Store().find().items() if found.source == "plugin brigantine_image"]
"""Texts have schedules of their own."""


def test_a_model_ships():
    assert "mnist" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_500_random_companies_change_no_bit(name: str):
    plugin = cast(Any, Registry.load(Settings(), only=name).find(name).loaded)
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


@pytest.mark.parametrize("name", SHIPPED)
def test_requests_at_once_and_in_any_order_get_the_bytes_they_get_alone(name: str):
    rng = np.random.default_rng(1)
    bodies: list[dict[str, Any]] = [
        {"seed": int(rng.integers(2**53)), "n": int(rng.integers(1, 9))} for _ in range(40)
    ]
    engine = Engine.start(Settings(threads=2), only=name)

    async def made(body: dict[str, Any]) -> list[bytes]:
        return [media.body for media in (await engine.generate(name, body)).media]

    async def in_order(order: list[int]) -> dict[int, list[bytes]]:
        answers = await asyncio.gather(*(made(bodies[index]) for index in order))
        return dict(zip(order, answers, strict=True))

    alone = [asyncio.run(made(body)) for body in bodies]
    for _ in range(5):
        together = asyncio.run(in_order(rng.permutation(len(bodies)).tolist()))
        assert [together[index] for index in range(len(bodies))] == alone
    engine.close()


def test_a_model_that_its_company_sways_runs_each_row_alone(tmp_path: Path):
    tiny_model(tmp_path, "swayed", swayed=True)
    tiny_model(tmp_path, "tiny")
    engine = Engine.start(Settings(models_dir=tmp_path, threads=1))

    async def rows(model: str) -> int:
        answers = await asyncio.gather(*(engine.generate(model, {"seed": seed, "n": 8}) for seed in range(4)))
        return max(answer.batch_rows for answer in answers)

    assert [cast(Any, engine.registry.find(name).facts).invariant for name in ("swayed", "tiny")] == [
        False,
        True,
    ]
    assert asyncio.run(rows("tiny")) > 1
    assert asyncio.run(rows("swayed")) == 1
    engine.close()
