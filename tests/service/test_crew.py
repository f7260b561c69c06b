"""The crew: processes that make the same bytes as threads do, and may die without taking the service with them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from brigantine.crew import Crew, Post
from brigantine.engine import Engine
from brigantine.errors import BadParams, GenerationFailed, NotReady
from brigantine.session import SessionOptions
from brigantine.settings import Settings
from brigantine_image import ImagePlugin

from tests.service.toys import until
from tests.tiny import tiny_model


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An engine whose batches are made by a crew of two."""
    engine = Engine.start(settings.model_copy(update={"crew": True}), only="tiny")
    yield engine
    engine.close()


def hands() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "brigantine.crew" in " ".join(child.cmdline())]


async def bodies(engine: Engine, **body: Any) -> list[bytes]:
    return [media.body for media in (await engine.generate("tiny", body)).media]


def test_a_crew_makes_the_bytes_that_threads_make(engine: Engine, settings: Settings):
    threads = Engine.start(settings, only="tiny")
    asked = [{"seed": seed, "n": 1 + seed % 40, "label": seed % 3} for seed in range(45)]

    async def all_at_once(one: Engine) -> list[list[bytes]]:
        return await asyncio.gather(*(bodies(one, **body) for body in asked))

    assert len(hands()) == 2
    assert asyncio.run(all_at_once(engine)) == asyncio.run(all_at_once(threads))
    threads.close()


def test_what_a_plugin_raises_in_a_process_reaches_its_client_with_its_field(engine: Engine):
    with pytest.raises(BadParams, match="label: expected an index from 0 to 2") as caught:
        asyncio.run(bodies(engine, label=9))

    assert caught.value.errors[0].field == "label"
    assert "ImagePlugin" in str(caught.value.__cause__) or "plugin.py" in str(caught.value.__cause__)


def test_stages_are_timed_across_processes(engine: Engine):
    generation = asyncio.run(engine.generate("tiny", {"n": 8}))

    assert all(seconds >= 0 for seconds in generation.stages_s.values())
    assert sum(generation.stages_s.values()) <= generation.total_s


def test_a_hand_that_dies_takes_only_what_it_was_making_and_is_replaced(engine: Engine):
    async def scenario() -> None:
        before = await bodies(engine, seed=7, n=4)
        victim, other = hands()
        victim.send_signal(signal.SIGKILL)
        outcomes = await asyncio.gather(
            *(bodies(engine, seed=7, n=4) for _ in range(20)), return_exceptions=True
        )
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert all("ended (SIGKILL)" in str(error) for error in failed)
        assert all(isinstance(error, GenerationFailed) for error in failed)
        assert [outcome for outcome in outcomes if outcome not in failed] == [before] * (20 - len(failed))
        await until(lambda: len(hands()) == 2 and victim.pid not in [hand.pid for hand in hands()])
        assert other.is_running()
        assert await asyncio.gather(*(bodies(engine, seed=7, n=4) for _ in range(20))) == [before] * 20

    asyncio.run(scenario())


def test_a_hand_that_dies_while_it_works_answers_with_an_error_at_once(settings: Settings):
    only = settings.model_copy(update={"crew": True, "threads": 1})
    engine = Engine.start(only, only="tiny")

    async def scenario() -> None:
        [hand] = hands()
        hand.suspend()
        asked = asyncio.ensure_future(bodies(engine, n=8))
        await asyncio.sleep(0.1)
        begin = time.perf_counter()
        hand.kill()
        with pytest.raises(GenerationFailed, match="the process that made this ended"):
            await asked
        assert time.perf_counter() - begin < 2
        assert len(await bodies(engine, n=8)) == 8  # by the one that was started in its place

    asyncio.run(scenario())
    engine.close()


def test_no_process_outlives_its_engine(settings: Settings):
    engine = Engine.start(settings.model_copy(update={"crew": True}), only="tiny")
    started = hands()
    engine.close()

    assert len(started) == 2
    assert not any(hand.is_running() for hand in started)


def test_a_hand_ends_when_its_parent_is_killed(settings: Settings, models_dir: Path):
    script = (
        "import os, signal\nfrom brigantine.engine import Engine\nfrom brigantine.settings import Settings\n"
        "engine = Engine.start(Settings(threads=1), only='tiny')\n"
        "print(engine._crew._hands[0]._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    import subprocess
    import sys

    environment = os.environ | {"BRIGANTINE_MODELS_DIR": str(models_dir)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.02)


def test_a_model_that_a_hand_cannot_load_ends_the_start_with_the_reason(tmp_path: Path):
    path = tiny_model(tmp_path)
    (path / "model.onnx").write_bytes(b"altered")
    post = Post("tiny", path, "folder", ImagePlugin, SessionOptions(), 9)

    with pytest.raises(NotReady, match=r"could not load its models: .*expected sha256"):
        Crew([post], 1)
    assert hands() == []
