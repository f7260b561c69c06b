import numpy as np
from brigantine.seeds import MAX_SEED, derive_seed, derive_seeds
from hypothesis import example, given
from hypothesis import strategies as st

SEEDS = st.integers(0, MAX_SEED)
INDICES = st.integers(1, 2**32 - 1)


@given(SEEDS)
def test_the_first_row_has_the_requests_own_seed(seed: int):
    assert derive_seed(seed, 0) == seed


@given(SEEDS, INDICES)
@example(0, 1)
@example(2**32 - 1, 63)  # the largest of one word
@example(2**32, 63)
@example(MAX_SEED, 2**32 - 1)
def test_the_others_have_what_numpy_makes_of_it(seed: int, index: int):
    word = np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0]

    assert derive_seed(seed, index) == int(word) >> 11


@given(SEEDS, st.integers(0, 1000), st.integers(0, 20))
def test_rows_that_are_asked_for_together_have_the_seeds_that_each_has_alone(
    seed: int, first: int, rows: int
):
    together = derive_seeds(seed, range(first, first + rows))

    assert together == [derive_seed(seed, index) for index in range(first, first + rows)]


def test_derived_seeds_are_pinned():
    """They are part of the seed contract: a change would change everyone's pictures."""
    assert derive_seeds(7, range(4)) == [7, 1973877946906281, 8573731580185675, 3332008669126762]
