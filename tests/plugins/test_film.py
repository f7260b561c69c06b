"""Interpolations: their frames, their place in batches, and the files that they become."""

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from brigantine import Arrays, BadParams
from brigantine.engine import Engine
from brigantine.request import parse, prepare_row, request_type
from brigantine.seeds import derive_seed
from brigantine.settings import Settings
from brigantine.station import Fault, Made, Station
from brigantine_image import ImagePlugin
from brigantine_image.latent import slerp
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.plugins.studio import drawn, encoded, frames, latent_of, media, opened, order, outcomes
from tests.tiny import Z_DIM, tiny_model


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ImagePlugin:
    return opened(tiny_model(tmp_path_factory.mktemp("models")))


@pytest.mark.parametrize("truncation", [1, 0.7])
def test_the_first_and_last_frame_are_the_plain_pictures_of_the_two_seeds(
    plugin: ImagePlugin, truncation: float
):
    still: dict[str, Any] = {"label": 1, "truncation": truncation}

    moving = drawn(plugin, seed=3, to_seed=8, frames=5, **still)

    assert len(moving) == 5
    assert np.array_equal(moving[0], drawn(plugin, seed=3, **still)[0])
    assert np.array_equal(moving[-1], drawn(plugin, seed=8, **still)[0])


def test_every_frame_is_the_plain_picture_of_its_latent(plugin: ImagePlugin):
    path = slerp(latent_of(3, Z_DIM), latent_of(8, Z_DIM), 7)

    moving = drawn(plugin, seed=3, to_seed=8, frames=7)

    assert [frame.tolist() for frame in moving] == [
        drawn(plugin, seed=3, z=encoded(z))[0].tolist() for z in path
    ]


def test_a_given_latent_is_where_it_begins(plugin: ImagePlugin):
    z = np.array([1, -1, 0.5, 2], np.float32)

    moving = drawn(plugin, seed=3, z=encoded(z), to_seed=8, label=0)

    assert len(moving) == 16
    assert np.array_equal(moving[0], drawn(plugin, z=encoded(z), label=0)[0])
    assert np.array_equal(moving[-1], drawn(plugin, seed=8, label=0)[0])


def test_the_label_stays_what_the_first_seed_drew(plugin: ImagePlugin):
    [plain] = media(plugin, seed=3)
    [other] = media(plugin, seed=5)
    [moving] = media(plugin, seed=3, to_seed=5)

    assert moving.info == {**plain.info, "frames": 16}
    assert plain.info["label"] != other.info["label"]  # or the test could not fail


def test_each_row_of_a_request_begins_at_its_own_seed(plugin: ImagePlugin):
    rows = media(plugin, seed=3, n=3, to_seed=8, frames=4)

    assert rows == [media(plugin, seed=derive_seed(3, index), to_seed=8, frames=4)[0] for index in range(3)]
    assert len({row.body for row in rows}) == 3


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/gif"])
def test_a_film_of_every_type_has_the_same_frames(plugin: ImagePlugin, media_type: str):
    [medium] = media(plugin, media_type, seed=3, to_seed=8, frames=9)

    picture = Image.open(io.BytesIO(medium.body))
    assert medium.type == media_type == f"image/{(picture.format or '').lower()}"
    assert [frame.tolist() for frame in frames(medium)] == [
        frame.tolist() for frame in drawn(plugin, seed=3, to_seed=8, frames=9)
    ]
    assert media(plugin, media_type, seed=3, to_seed=8, frames=9) == [medium]


def test_a_type_without_frames_is_refused_with_those_that_have_some(plugin: ImagePlugin):
    expected = (
        "an answer in image/png, image/webp, image/gif, which have frames, or a request without to_seed"
    )

    with pytest.raises(BadParams) as caught:
        media(plugin, "image/jpeg", to_seed=8)
    assert str(caught.value) == f"to_seed: expected {expected}, got one for image/jpeg"


class Batches(list[int]):
    """The rows of each batch that the plugin runs."""

    def __init__(self, plugin: ImagePlugin, monkeypatch: pytest.MonkeyPatch) -> None:
        run = plugin.session.run

        def counted(batch: Arrays) -> dict[str, np.ndarray]:
            self.append(len(batch["z"]))
            return run(batch)

        monkeypatch.setattr(plugin.session, "run", counted)


def test_a_film_takes_a_frame_a_step_and_others_join_between(
    plugin: ImagePlugin, monkeypatch: pytest.MonkeyPatch
):
    batches = Batches(plugin, monkeypatch)
    film = order(0, {"seed": 1, "to_seed": 2, "frames": 4})
    plain = [order(job, {"seed": job, "n": 2}) for job in (1, 2)]

    told = outcomes(plugin, [[film], plain, [order(3, {"seed": 1, "to_seed": 5, "frames": 2})]])

    assert batches == [1, 1 + 4, 1 + 1, 1 + 1]
    assert len(told) == 1 + 4 + 1


def test_a_plain_picture_is_done_after_its_first_step(plugin: ImagePlugin):
    orders = [order(0, {"seed": 1, "to_seed": 2}), order(1, {"seed": 3})]

    assert [job for job, _, _ in Station(plugin, 9).advance(orders).outcomes] == [1]


def test_a_step_leaves_its_states_as_they_were(plugin: ImagePlugin):
    kind = request_type(plugin.params, "Asked", 9)
    bodies = [{"to_seed": 8, "frames": 3}, {}, {"to_seed": 9, "frames": 4, "truncation": 0.5}]
    states: Any = [prepare_row(plugin, parse(kind, body), seed) for seed, body in enumerate(bodies)]

    while states := [state for state in states if not hasattr(state, "row") or hasattr(state, "drawn")]:
        before = repr(states)
        once, again = plugin.step(states), plugin.step(states)
        assert repr(states) == before
        assert repr(once) == repr(again)
        states = once


def test_a_frame_keeps_no_batch_alive(plugin: ImagePlugin):
    kind = request_type(plugin.params, "Asked", 9)
    states = [prepare_row(plugin, parse(kind, {"to_seed": 8}), seed) for seed in range(8)]

    films: list[Any] = list(plugin.step(states))
    for film in films:
        assert film.drawn[0].base is None


def test_a_step_that_raises_costs_only_the_request_that_makes_it(
    plugin: ImagePlugin, monkeypatch: pytest.MonkeyPatch
):
    bodies: list[dict[str, Any]] = [
        {"seed": 1, "to_seed": 2, "frames": 6},
        {"seed": 3},
        {"seed": 4, "to_seed": 5, "frames": 6, "label": 2},
        {"seed": 6, "to_seed": 7, "frames": 3, "n": 2},
    ]
    alone = [media(plugin, **body) for body in bodies]
    run, poison = plugin.session.run, latent_of(5, Z_DIM)

    def poisoned(batch: Arrays) -> dict[str, np.ndarray]:
        if (batch["z"] == poison).all(axis=1).any():  # the last frame of the third request
            raise ValueError("thirteen")
        return run(batch)

    monkeypatch.setattr(plugin.session, "run", poisoned)
    told = outcomes(plugin, [[order(job, body) for job, body in enumerate(bodies)]])

    assert isinstance(told.pop((2, 0)), Fault)
    assert {place: made.media for place, made in told.items() if isinstance(made, Made)} == {
        (0, 0): alone[0][0],
        (1, 0): alone[1][0],
        (3, 0): alone[3][0],
        (3, 1): alone[3][1],
    }


BODIES = st.fixed_dictionaries(
    {"seed": st.integers(0, 30)},
    optional={
        "n": st.integers(1, 3),
        "label": st.integers(0, 2),
        "truncation": st.sampled_from([0, 0.5, 1]),
        "z": st.integers(0, 5).map(lambda seed: encoded(latent_of(seed, Z_DIM))),
    },
)
FILMS = st.tuples(BODIES, st.integers(0, 30), st.integers(2, 8)).map(
    lambda film: film[0] | {"to_seed": film[1], "frames": film[2]}
)


@settings(max_examples=40)
@given(st.lists(st.lists(st.one_of(BODIES, FILMS), max_size=4), min_size=1, max_size=6))
def test_a_row_is_what_it_is_alone_whoever_comes_and_goes(
    plugin: ImagePlugin, joining: list[list[dict[str, Any]]]
):
    jobs = [body for bodies in joining for body in bodies]
    numbers = iter(range(len(jobs)))

    told = outcomes(plugin, [[order(next(numbers), body) for body in bodies] for bodies in joining])

    assert len(told) == sum(body.get("n", 1) for body in jobs)
    for job, body in enumerate(jobs):
        for index, medium in enumerate(media(plugin, **body)):
            made = told[job, index]
            assert isinstance(made, Made) and made.media == medium


def test_the_shipped_models_rows_are_their_own_among_films_in_two_threads():
    rng = np.random.default_rng(0)
    bodies: list[dict[str, Any]] = [
        {"seed": int(rng.integers(2**53)), "n": int(rng.integers(1, 5))}
        | ({"to_seed": index, "frames": int(rng.integers(2, 9))} if index % 2 else {})
        for index in range(24)
    ]
    engine = Engine.start(Settings(threads=2), only="mnist")

    async def made(body: dict[str, Any]) -> list[bytes]:
        return [medium.body for medium in (await engine.generate("mnist", body)).media]

    async def at_once() -> list[list[bytes]]:
        return await asyncio.gather(*map(made, bodies))

    try:
        alone = [asyncio.run(made(body)) for body in bodies]
        assert asyncio.run(at_once()) == alone
    finally:
        engine.close()
