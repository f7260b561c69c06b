"""Sampling: by the rules of the papers, and by the row alone."""

import numpy as np
import pytest
from brigantine_text.sampling import Sampling, Wish, _first_above, choose, likeliest, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

PLAIN = Sampling(1.0, 1.0, 0, 0.0, 1.0, 0.0, 0.0)
LOGITS = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05], np.float32))

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-6, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 99]),
    min_p=st.sampled_from([0.0, 0.2, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5]),
)
wishes = st.builds(
    Wish,
    samplings,
    st.tuples(st.integers(0, 47)),
    st.lists(st.integers(0, 47), max_size=5).map(tuple),
    st.floats(0, 1, exclude_max=True),
)


def allowed(**wanted: float) -> list[int]:
    """All tokens that may be drawn from LOGITS."""
    sampling = PLAIN._replace(**wanted)
    drawn = {
        choose(LOGITS[None], [Wish(sampling, (), (), uniform)])[0] for uniform in np.linspace(0, 1, 201)[:-1]
    }
    return sorted(drawn)


@given(st.lists(wishes, min_size=1, max_size=9), st.integers(0, 9))
def test_a_row_gets_what_it_gets_alone(several: list[Wish], seed: int):
    logits = np.random.default_rng(seed).standard_normal((len(several), 48)).astype(np.float32) * 3
    together = choose(logits, several)
    alone = [choose(row[None], [wish])[0] for row, wish in zip(logits, several, strict=True)]
    assert together == alone
    assert all(0 <= token < 48 for token in together)


@given(
    st.lists(wishes, min_size=1, max_size=5),
    st.integers(0, 9),
    st.sampled_from([2048, 2049, 5000, 5120]),
)
@settings(deadline=None)
def test_of_a_large_vocabulary_too(several: list[Wish], seed: int, size: int):
    logits = np.random.default_rng(seed).standard_normal((len(several), size)).astype(np.float32) * 3
    together = choose(logits, several)
    assert together == [choose(row[None], [wish])[0] for row, wish in zip(logits, several, strict=True)]


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
    st.integers(0, 9),
    st.sampled_from([5000, 5120]),
    st.sampled_from([0, 1, 40]),
)
@settings(deadline=None)
def test_a_large_vocabulary_is_inverted_as_a_small_one(
    uniforms: list[float], seed: int, size: int, top_k: int
):
    """The token at which the sum, added up one by one, passes the row's number; rounding aside."""
    logits = np.random.default_rng(seed).standard_normal((len(uniforms), size)).astype(np.float32) * 3
    made = choose(logits, [Wish(PLAIN._replace(top_k=top_k), (), (), uniform) for uniform in uniforms])
    for row, uniform, token in zip(logits.astype(np.float64), uniforms, made, strict=True):
        weights = np.exp(row - row.max())
        if top_k:
            weights[row < np.sort(row)[-top_k]] = 0
        sums = np.cumsum(weights) / weights.sum()
        before = sums[token - 1] if token else 0.0
        assert weights[token] > 0
        assert before - 1e-6 <= uniform <= sums[token] + 1e-6


@pytest.mark.parametrize("size", [48, 5000, 5120])
def test_the_smallest_and_the_largest_number_have_a_token_that_may_be_drawn(size: int):
    """What is wanted may be rounded up to the whole sum, or beyond it."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((300, size)).astype(np.float32)
    sparse = np.where(rng.random(dense.shape) < 9 / size, dense, np.float32(-np.inf))
    sparse[:, size // 2] = 0
    # All of it in the last block, and of sizes whose sum is rounded.
    lone = np.where(np.arange(size) < size - 128, np.float32(-np.inf), dense * 9)
    for logits in (dense, sparse, lone):
        for uniform in (0.0, np.nextafter(1.0, 0.0)):
            for row, token in zip(logits, choose(logits, [Wish(PLAIN, (), (), uniform)] * 300), strict=True):
                there = np.flatnonzero(np.isfinite(row))
                assert token in (there if uniform else there[:1])


@pytest.mark.parametrize(
    ("wanted", "found"), [(0.0, 1), (0.4, 1), (0.5, 2), (0.9, 2), (1.0, 2), (np.nextafter(1, 2), 2)]
)
def test_the_first_that_is_above_is_one_that_may_be_drawn(wanted: float, found: int):
    assert _first_above(np.array([0.0, 0.5, 1.0, 1.0]), wanted) == found


@given(wishes, st.integers(0, 99))
def test_logits_are_left_as_they_were(wish: Wish, seed: int):
    logits = np.random.default_rng(seed).standard_normal((1, 48)).astype(np.float32)
    before = logits.copy()
    choose(logits, [wish])
    assert np.array_equal(logits, before)


def test_draws_are_as_frequent_as_they_are_probable():
    uniforms = (np.arange(10_000) + 0.5) / 10_000
    logits: NDArray[np.float32] = np.repeat(LOGITS[None], len(uniforms), 0)
    tokens = choose(logits, [Wish(PLAIN, (), (), float(uniform)) for uniform in uniforms])
    assert np.bincount(tokens) / len(tokens) == pytest.approx([0.4, 0.3, 0.15, 0.1, 0.05], abs=1e-3)


def test_a_temperature_sharpens():
    uniforms = (np.arange(2_000) + 0.5) / 2_000
    logits: NDArray[np.float32] = np.repeat(LOGITS[None], len(uniforms), 0)
    half = PLAIN._replace(temperature=0.5)
    tokens = choose(logits, [Wish(half, (), (), float(uniform)) for uniform in uniforms])
    squares = np.array([0.4, 0.3, 0.15, 0.1, 0.05]) ** 2
    assert np.bincount(tokens) / len(tokens) == pytest.approx(squares / squares.sum(), abs=1e-3)
    assert choose(LOGITS[None], [Wish(PLAIN._replace(temperature=0.0), (), (), 0.99)]) == [0]


def test_only_the_likeliest_may_be_drawn():
    assert allowed() == [0, 1, 2, 3, 4]
    assert allowed(top_k=2) == [0, 1]
    assert allowed(top_k=99) == [0, 1, 2, 3, 4]
    assert allowed(top_p=0.5) == [0, 1]  # 0.4 is not enough
    assert allowed(top_p=0.0) == [0]
    assert allowed(min_p=0.3) == [0, 1, 2]
    assert allowed(min_p=1.0) == [0]
    assert allowed(top_k=4, min_p=0.3, top_p=0.6) == [0, 1]


def test_what_was_there_is_penalised():
    greedy = PLAIN._replace(temperature=0.0)
    logits = np.array([[2.0, 1.9, -1.0]], np.float32)

    def next_after(prompt: tuple[int, ...], made: tuple[int, ...], **wanted: float) -> int:
        return choose(logits, [Wish(greedy._replace(**wanted), prompt, made, 0.0)])[0]

    assert next_after((0,), ()) == 0
    assert next_after((0,), (), repetition_penalty=1.2) == 1  # the prompt counts
    assert next_after((0,), (), presence_penalty=1.0) == 0  # and does not
    assert next_after((), (0,), presence_penalty=0.2) == 1
    assert next_after((), (0, 1, 1), frequency_penalty=0.2) == 0
    assert next_after((), (0, 0, 1), frequency_penalty=0.2) == 1
    assert next_after((), (0, 2), repetition_penalty=1.2) == 1
    assert next_after((0, 1), (), repetition_penalty=10.0) == 0  # -1 is not in the prompt, and yet the least


def test_log_probabilities():
    logprobs = log_softmax(LOGITS + 7)
    assert np.exp(logprobs) == pytest.approx([0.4, 0.3, 0.15, 0.1, 0.05])
    assert likeliest(logprobs, 3) == [0, 1, 2]
    assert likeliest(np.zeros(4), 2) == [0, 1]
