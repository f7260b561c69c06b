import asyncio
import re
import threading
import time

import pytest
from brigantine.engine import Caller, Engine
from brigantine.errors import (
    BadParams,
    DeadlineExceeded,
    GenerationFailed,
    ModelNotFound,
    NotAcceptable,
    QueueFull,
)
from brigantine.model import Arrays
from brigantine.settings import Settings
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.service.toys import plugin_of


def make(engine: Engine, **body: object):
    return asyncio.run(engine.generate("tiny", body))


def bodies(engine: Engine, **body: object) -> list[bytes]:
    return [media.body for media in make(engine, **body).media]


def test_the_same_seed_gives_the_same_bytes(engine: Engine):
    assert bodies(engine, seed=7, n=4) == bodies(engine, seed=7, n=4)
    assert bodies(engine, seed=7) != bodies(engine, seed=8)


def test_every_row_is_made_again_alone_by_its_reported_seed(engine: Engine):
    whole = make(engine, seed=7, n=6, label=1)

    alone = [bodies(engine, seed=seed, label=1)[0] for seed in whole.seeds]

    assert [media.body for media in whole.media] == alone
    assert len(set(alone)) == 6


def test_a_drawn_seed_is_reported(engine: Engine):
    drawn = make(engine)

    assert bodies(engine, seed=drawn.seeds[0]) == [drawn.media[0].body]


@examples(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 2**53 - 1), st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=12
    )
)
def test_the_company_in_a_batch_changes_nothing(engine: Engine, requests: list[tuple[int, int, int]]):
    def body(seed: int, n: int, label: int) -> dict[str, object]:
        return {"seed": seed, "n": n, "label": label}

    async def together():
        return await asyncio.gather(*(engine.generate("tiny", body(*request)) for request in requests))

    for request, generation in zip(requests, asyncio.run(together()), strict=True):
        assert [media.body for media in generation.media] == bodies(engine, **body(*request))


def test_labels_differ_and_the_latent_does_not(engine: Engine):
    assert bodies(engine, seed=1, label=0) != bodies(engine, seed=1, label=1)
    absent = make(engine, seed=1)
    assert bodies(engine, seed=1, label=absent.media[0].info["label"]) == [absent.media[0].body]


def test_a_medium_of_another_type_can_be_asked_for(engine: Engine):
    [media] = asyncio.run(engine.generate("tiny", {}, "image/webp")).media
    assert (media.type, media.body[:4], media.body[8:12]) == ("image/webp", b"RIFF", b"WEBP")

    with pytest.raises(
        NotAcceptable, match="makes image/png, image/webp, image/jpeg, image/gif, not audio/wav"
    ):
        asyncio.run(engine.generate("tiny", {}, "audio/wav"))


def test_an_unknown_model_and_bad_params_are_refused(engine: Engine):
    with pytest.raises(ModelNotFound, match="'nine': expected one of tiny"):
        asyncio.run(engine.generate("nine", {}))
    with pytest.raises(
        BadParams, match="label: expected an index from 0 to 2 or one of zero, one, two, got 9"
    ):
        make(engine, label=9)


def broken(message: str):
    def step(*args: object) -> Arrays:
        raise ZeroDivisionError(message)

    return step


@pytest.mark.parametrize("step", ["prepare", "render"])
def test_what_a_plugin_raises_names_the_step(engine: Engine, monkeypatch: pytest.MonkeyPatch, step: str):
    monkeypatch.setattr(plugin_of(engine), step, broken("by nought"))

    with pytest.raises(GenerationFailed, match=rf"{step}\(\) raised ZeroDivisionError: by nought"):
        make(engine)


@pytest.mark.parametrize("step", ["prepare", "render"])
def test_the_deadline_covers_every_step(engine: Engine, monkeypatch: pytest.MonkeyPatch, step: str):
    plugin = plugin_of(engine)
    run = getattr(plugin, step)
    monkeypatch.setattr(plugin, step, lambda *args: time.sleep(0.5) or run(*args))

    begin = time.perf_counter()
    with pytest.raises(DeadlineExceeded):
        asyncio.run(_within(engine, 0.1))
    assert time.perf_counter() - begin < 1.5


async def _within(engine: Engine, timeout_s: float) -> None:
    await engine.generate("tiny", {}, caller=Caller(timeout_s))


def test_rows_are_bounded_before_they_are_prepared(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    engine = Engine.start(settings.model_copy(update={"queue_rows": 4, "threads": 1}), only="tiny")
    plugin = plugin_of(engine)
    run = plugin.prepare
    monkeypatch.setattr(plugin, "prepare", lambda *args: time.sleep(0.1) or run(*args))

    async def flood() -> list[object]:
        return await asyncio.gather(
            *(engine.generate("tiny", {"n": 2}) for _ in range(4)), return_exceptions=True
        )

    outcomes = asyncio.run(flood())
    engine.close()
    assert [isinstance(outcome, QueueFull) for outcome in outcomes] == [False, False, True, True]


@pytest.fixture
def stuck(settings: Settings):
    """An engine whose model never answers until the test ends."""
    engine = Engine.start(
        settings.model_copy(update={"timeout_s": 0.2, "threads": 1, "queue_rows": 3}), only="tiny"
    )
    release = threading.Event()
    plugin = plugin_of(engine)
    plugin.generate = lambda batch: plugin.session.run(batch) if release.wait(30) else {}
    yield engine
    release.set()
    engine.close()


def test_a_late_answer_is_504_and_its_work_is_dropped(stuck: Engine):
    async def two() -> None:
        first = asyncio.create_task(stuck.generate("tiny", {}))
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
            await stuck.generate("tiny", {"n": 2})
        with pytest.raises(DeadlineExceeded):
            await first

    asyncio.run(two())
    assert stuck.served("tiny").scheduler.waiting == 0


def test_a_full_queue_is_429(stuck: Engine):
    async def many() -> None:
        tasks: list[asyncio.Task[object]] = []
        for _ in range(2):  # one runs, and one waits
            tasks.append(asyncio.create_task(stuck.generate("tiny", {"n": 1})))
            await asyncio.sleep(0.05)
        with pytest.raises(QueueFull):
            await stuck.generate("tiny", {"n": 3})
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(many())


def test_nothing_is_counted_when_metrics_are_off(settings: Settings):
    engine = Engine.start(settings.model_copy(update={"metrics": False}), only="tiny")
    make(engine, n=3)
    text = engine.metrics.exposition()[0].decode()
    engine.close()

    assert 'brigantine_outputs_total{content="image",model="tiny"} 0.0' in text
    assert 'brigantine_plugin_up{plugin="image"} 1.0' in text


def test_every_generation_is_counted(engine: Engine):
    make(engine, n=3)
    with pytest.raises(BadParams):
        make(engine, n=0)

    text = engine.metrics.exposition()[0].decode()

    assert 'brigantine_requests_total{content="image",model="tiny",status="200"} 1.0' in text
    assert 'brigantine_requests_total{content="image",model="tiny",status="422"} 1.0' in text
    assert 'brigantine_outputs_total{content="image",model="tiny"} 3.0' in text
    assert 'brigantine_in_flight{model="tiny"} 0.0' in text
    assert 'brigantine_plugin_up{plugin="image"} 1.0' in text
    assert 'brigantine_stage_seconds_count{model="tiny",stage="queue"} 1.0' in text
    batches = re.findall(r'brigantine_batch_rows_count{model="tiny"} (\S+)', text)
    for stage in ("prepare", "compute", "encode"):
        assert (
            re.findall(rf'brigantine_stage_seconds_count{{model="tiny",stage="{stage}"}} (\S+)', text)
            == batches
        )
    assert float(batches[0]) >= 1
