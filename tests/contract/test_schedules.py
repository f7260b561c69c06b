"""The seed contract for text: whoever comes and goes beside it, a seeded text is the one that is made alone."""

import asyncio
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
from brigantine.engine import Caller, Engine
from brigantine.settings import Settings
from brigantine.store import Store
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parrot import parrot_model
from tests.scribble import scribble_model

SCHEDULES = 300
SHIPPED = [name for name, found in Store().find().items() if found.source == "plugin brigantine_text"]
LONG = "the ship sails at dawn, the wind is fair; she carries tea, silk and a cat. " * 2
"""Longer than a chunk, so that some begin with what others have read."""


class Wanted(NamedTuple):
    """One request of a schedule."""

    prompt: str
    tokens: int
    seed: int
    temperature: float
    after_ms: int
    hangs_up_ms: int | None


requests = st.builds(
    Wanted,
    prompt=st.sampled_from(["", "tea", "the wind", LONG, LONG + "silk", LONG[:90] + "cat"]),
    tokens=st.integers(0, 24),
    seed=st.integers(0, 5),
    temperature=st.sampled_from([0.0, 0.8, 1.0]),
    after_ms=st.integers(0, 6),
    hangs_up_ms=st.one_of(st.none(), st.none(), st.integers(0, 8)),
)


@pytest.fixture(scope="module", params=["scribble", "parrot", *SHIPPED])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, str]]:
    folder = tmp_path_factory.mktemp("models")
    scribble_model(folder, max_batch=6)  # fewer places than a schedule may want
    parrot_model(folder, max_batch=6)
    engine = Engine.start(Settings(models_dir=folder, timeout_s=5), only=request.param)
    yield engine, request.param
    engine.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The one that the engine belongs to."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def body(wanted: Wanted) -> dict[str, Any]:
    return {
        "prompt": wanted.prompt,
        "max_tokens": wanted.tokens,
        "seed": wanted.seed,
        "temperature": wanted.temperature,
    }


async def asked(engine: Engine, name: str, wanted: Wanted) -> bytes | None:
    """The text, and first that its parts are the beginning of it; None for a client that has hung up."""
    gone = asyncio.get_running_loop().create_future()
    parts: list[bytes] = []

    def show(index: int, media: Any, done: bool) -> None:
        if not done:
            parts.append(media.body)

    await asyncio.sleep(wanted.after_ms / 1000)
    if wanted.hangs_up_ms is not None:
        asyncio.get_running_loop().call_later(wanted.hangs_up_ms / 1000, gone.cancel)
    try:
        made = await engine.generate(name, body(wanted), caller=Caller(gone=gone, on_part=show))
    except asyncio.CancelledError:
        return None
    text = made.media[0].body
    assert text.startswith(b"".join(parts))
    return text


def test_300_schedules_change_no_text(served: tuple[Engine, str], loop: asyncio.AbstractEventLoop):
    engine, name = served

    @cache
    def alone(prompt: str, tokens: int, seed: int, temperature: float) -> bytes:
        wanted = Wanted(prompt, tokens, seed, temperature, 0, None)
        return loop.run_until_complete(engine.generate(name, body(wanted))).media[0].body

    async def together(several: list[Wanted]) -> list[bytes | None]:
        return await asyncio.gather(*(asked(engine, name, wanted) for wanted in several))

    @settings(max_examples=SCHEDULES)
    @given(st.lists(requests, min_size=1, max_size=10))
    def check(several: list[Wanted]) -> None:
        texts = loop.run_until_complete(together(several))
        for wanted, text in zip(several, texts, strict=True):
            if text is None:
                assert wanted.hangs_up_ms is not None
            else:
                assert text == alone(*wanted[:4])

    check()
    scheduler = engine.served(name).scheduler
    assert scheduler.held == 0
    assert scheduler.waiting == 0
