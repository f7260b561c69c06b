"""The crew: processes that make the same bytes as threads do, and may die without taking the service with them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from brigantine.crew import Crew, Post
from brigantine.engine import Engine
from brigantine.errors import BadParams, GenerationFailed, NotReady
from brigantine.model import Model
from brigantine.scheduler import Job, Scheduler
from brigantine.session import SessionOptions
from brigantine.settings import Settings
from brigantine_image import ImagePlugin

from tests.service.odd import DEADLY, LARGE, LARGE_BYTES, UNSENDABLE, Odd
from tests.service.toys import until
from tests.tiny import tiny_model


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An engine whose batches are made by a crew of two."""
    engine = Engine.start(settings.model_copy(update={"crew": True}), only="tiny")
    yield engine
    engine.close()


def hands() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ends just now
            if "brigantine.crew" in " ".join(child.cmdline()):
                found.append(child)
    return found


def post(path: Path, plugin: type[ImagePlugin] = ImagePlugin) -> Post:
    model = Model.open(path)
    return Post(model.name, path, "folder", model.digest, plugin, SessionOptions(), 9)


def job(**body: Any) -> Job:
    return Job(body, None, 7, "image/png")


@contextmanager
def crewed(*posts: Post, size: int = 1) -> Iterator[dict[str, Scheduler]]:
    """A scheduler for each model, all on one crew."""
    crew = Crew(posts, size)
    yield {one.name: Scheduler(crew.lanes(one.name), max_batch=8, queue_rows=1000) for one in posts}
    crew.close()


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


def test_a_hand_that_dies_takes_only_its_batch_and_is_replaced(engine: Engine):
    async def scenario() -> None:
        before = await bodies(engine, seed=7, n=4)
        victim, other = hands()
        victim.suspend()
        asked = [asyncio.ensure_future(bodies(engine, seed=7, n=4)) for _ in range(20)]
        await asyncio.sleep(0.1)
        victim.kill()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert 1 <= len(failed) <= 8  # rows of 4 in one batch of 32 at most
        assert all(isinstance(error, GenerationFailed) and "SIGKILL" in str(error) for error in failed)
        assert [outcome for outcome in outcomes if outcome not in failed] == [before] * (20 - len(failed))
        await until(lambda: len(hands()) == 2 and victim.pid not in [hand.pid for hand in hands()])
        assert other.is_running()
        assert await asyncio.gather(*(bodies(engine, seed=7, n=4) for _ in range(20))) == [before] * 20

    asyncio.run(scenario())


def test_a_request_that_kills_its_process_again_and_again_harms_nobody_else(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        for _ in range(3):
            deadly = job(label=DEADLY)
            one.submit(deadly)
            with pytest.raises(GenerationFailed, match="exit code 3"):
                await deadly.done
            harmless = job(label=0)
            one.submit(harmless)  # waits until another process is ready
            await harmless.done
            assert harmless.media[0].type == "image/png"

    with crewed(post(tiny_model(tmp_path), Odd)) as schedulers:
        asyncio.run(scenario(schedulers["tiny"]))


def test_an_answer_that_cannot_travel_fails_alone(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        jobs = [job(label=0), job(label=UNSENDABLE), job(label=0)]
        for each in jobs:
            one.submit(each)
        await asyncio.gather(*(each.done for each in jobs), return_exceptions=True)
        with pytest.raises(GenerationFailed, match=r"render\(\) raised"):
            await jobs[1].done
        assert jobs[0].media[0].body == jobs[2].media[0].body

    with crewed(post(tiny_model(tmp_path), Odd)) as schedulers:
        asyncio.run(scenario(schedulers["tiny"]))


def test_a_body_that_cannot_travel_fails_alone(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        jobs = [job(label=0), job(label=lambda: 0), job(label=0)]
        for each in jobs:
            one.submit(each)  # they go out together
        await asyncio.gather(*(each.done for each in jobs), return_exceptions=True)
        with pytest.raises(GenerationFailed, match=r"put\(\) raised"):
            await jobs[1].done
        assert jobs[0].media[0].body == jobs[2].media[0].body

    with crewed(post(tiny_model(tmp_path))) as schedulers:
        asyncio.run(scenario(schedulers["tiny"]))


def test_answers_larger_than_a_sockets_buffer_come_whole_from_two_models_on_one_hand(tmp_path: Path):
    models = [post(tiny_model(tmp_path, name), Odd) for name in ("one", "two")]

    async def scenario(schedulers: dict[str, Scheduler]) -> None:
        jobs = [(job(label=LARGE), name) for name in ("one", "two") for _ in range(6)]
        for each, name in jobs:
            schedulers[name].submit(each)
        await asyncio.gather(*(each.done for each, _ in jobs))
        assert [len(each.media[0].body) for each, _ in jobs] == [LARGE_BYTES] * 12

    with crewed(*models) as schedulers:
        asyncio.run(scenario(schedulers))


def test_nothing_is_started_after_the_end(tmp_path: Path):
    async def scenario(one: Scheduler, crew: Crew) -> None:
        for _ in range(2):  # the second death has a back-off
            deadly = job(label=DEADLY)
            one.submit(deadly)
            with pytest.raises(GenerationFailed):
                await deadly.done
        crew.close()
        await asyncio.sleep(0.3)
        assert hands() == []

    crew = Crew([post(tiny_model(tmp_path), Odd)], 1)
    asyncio.run(scenario(Scheduler(crew.lanes("tiny"), max_batch=8, queue_rows=9), crew))


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


def test_a_hand_ends_when_its_parent_is_killed(tmp_path: Path, models_dir: Path):
    script = (
        "import os, signal\nfrom brigantine.engine import Engine\nfrom brigantine.settings import Settings\n"
        "engine = Engine.start(Settings(threads=1, crew=True), only='tiny')\n"
        "print(engine._crew._hands[0]._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    said = tmp_path / "pid"
    with said.open("w") as output:  # no pipe, whose end the hand would keep open
        environment = os.environ | {"BRIGANTINE_MODELS_DIR": str(models_dir)}
        subprocess.run(
            [sys.executable, "-c", script], env=environment, stdout=output, timeout=60, check=False
        )
    pid = int(said.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid):
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                break
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.02)


def test_a_model_that_has_been_replaced_is_not_served_under_the_old_digest(tmp_path: Path):
    other = post(tiny_model(tmp_path))._replace(digest="0" * 64)

    with pytest.raises(NotReady, match="the model has been replaced since the service started"):
        Crew([other], 2)
    assert hands() == []


def test_without_a_crew_threads_serve(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    def refuse(posts: object, size: int) -> Crew:
        raise NotReady("no room")

    monkeypatch.setattr("brigantine.engine.Crew", refuse)
    engine = Engine.start(settings.model_copy(update={"crew": True}), only="tiny")

    assert len(asyncio.run(bodies(engine, n=8))) == 8
    engine.close()
