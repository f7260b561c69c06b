import pytest
from brigantine.errors import BadParams, BadRequest
from brigantine.plugin import Params
from brigantine.request import Request, parse, request_type, seed_of
from brigantine.seeds import MAX_SEED, derive_seeds
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

SEEDS = st.integers(0, MAX_SEED)


class WaveParams(Params):
    """A sound."""

    pitch_hz: float = Field(440.0, gt=0, le=20_000, description="How high.")
    shape: int | str = Field("sine", description="Which.")


WaveRequest = request_type(WaveParams, "WaveRequest", max_n=16)


def seeds_of(request: Request) -> list[int]:
    seed = seed_of(request)
    return derive_seeds(seed, range(request.n))


def parsed(**body: object) -> Request:
    return parse(WaveRequest, body)


def test_a_request_is_the_plugins_params_with_n_and_seed():
    request = parsed(pitch_hz=220, n=3, seed=7)

    assert isinstance(request, WaveParams)
    assert (request.pitch_hz, request.n, request.seed) == (220, 3, 7)


@given(SEEDS, st.integers(2, 16))
def test_every_row_can_be_made_again_alone(seed: int, n: int):
    seeds = seeds_of(parsed(seed=seed, n=n))

    assert [seeds_of(parsed(seed=one)) for one in seeds] == [[one] for one in seeds]
    assert len(set(seeds)) == n
    assert all(0 <= one <= MAX_SEED for one in seeds)


@given(SEEDS, st.integers(1, 8))
def test_more_rows_do_not_change_the_first_ones(seed: int, n: int):
    assert seeds_of(parsed(seed=seed, n=16))[:n] == seeds_of(parsed(seed=seed, n=n))


def test_without_a_seed_each_request_draws_its_own():
    assert seeds_of(parsed()) != seeds_of(parsed())


@pytest.mark.parametrize(
    ("body", "field", "expected", "got"),
    [
        ({"n": 0}, "n", "greater than or equal to 1", "0"),
        ({"n": 17}, "n", "less than or equal to 16", "17"),
        ({"n": "4"}, "n", "a valid integer", "'4'"),
        ({"seed": "seven"}, "seed", "a valid integer", "'seven'"),
        ({"seed": -1}, "seed", "greater than or equal to 0", "-1"),
        ({"seed": 2**53}, "seed", f"less than or equal to {MAX_SEED}", str(2**53)),
        ({"pitch_hz": 0}, "pitch_hz", "greater than 0", "0"),
        ({"shape": None}, "shape", "a valid integer or a valid string", "None"),
        ({"pitch": 3}, "pitch", "did you mean pitch_hz?", "an unknown one, 3"),
        ({"colour": 3}, "colour", "they are pitch_hz, shape, n, seed", "an unknown one, 3"),
    ],
)
def test_a_bad_field_is_named_with_what_was_expected_and_what_came(
    body: dict[str, object], field: str, expected: str, got: str
):
    with pytest.raises(BadParams) as caught:
        parse(WaveRequest, body)

    [error] = caught.value.errors
    assert error.field == caught.value.param == field
    assert expected in error.expected
    assert error.got == got


def test_all_bad_fields_are_named_at_once():
    with pytest.raises(BadParams) as caught:
        parsed(n=0, seed="x", colour="red")

    assert {error.field for error in caught.value.errors} == {"n", "seed", "colour"}


def test_a_huge_value_is_shortened_in_the_message():
    with pytest.raises(BadParams) as caught:
        parsed(seed="x" * 100_000)

    assert len(str(caught.value)) < 200


def test_a_deeply_nested_value_is_shown_without_following_it():
    nested: object = 1
    for _ in range(5000):
        nested = [nested]

    with pytest.raises(BadParams, match=r"n: expected a valid integer, got \[\[\[\.\.\.\]\]\]"):
        parsed(n=nested)


def test_a_flood_of_fields_is_refused_as_one():
    with pytest.raises(BadRequest, match="expected at most 64 fields, got 70000"):
        parsed(**{f"field{i}": 1 for i in range(70_000)})


def test_fields_of_another_part_of_the_request_are_in_the_hint():
    with pytest.raises(BadParams, match=r"did you mean model\?"):
        parse(WaveRequest, {"modle": "x"}, also=["model"])
