"""The mathematics of latents, against its own definitions."""

import base64
import struct

import numpy as np
import pytest
from brigantine_image.latent import decoded, layered, mixed, of_seed, slerp, truncated
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.plugins.studio import encoded, latent_of

Z_DIM = 5
VALUES = st.floats(-8, 8, width=32, allow_subnormal=False)
LATENTS = arrays.arrays(np.float32, Z_DIM, elements=VALUES)
FRAMES = st.integers(2, 64)


def length(z: np.ndarray) -> np.ndarray:
    return np.linalg.norm(z.astype(np.float64), axis=-1)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Between two latents, by the cosine; not as `slerp` does it."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.arccos(np.clip(a @ b / (length(a) * length(b)), -1, 1)))


def assume_an_arc(a: np.ndarray, b: np.ndarray) -> None:
    assume(length(a) > 0.01 and length(b) > 0.01)
    assume(0.01 < angle(a, b) < np.pi - 0.01)


@given(LATENTS, LATENTS, FRAMES)
def test_a_way_begins_and_ends_with_the_very_bits(a: np.ndarray, b: np.ndarray, frames: int):
    before = a.tobytes(), b.tobytes()

    path = slerp(a, b, frames)

    assert path.shape == (frames, Z_DIM) and path.dtype == np.float32
    assert (path[0].tobytes(), path[-1].tobytes()) == before == (a.tobytes(), b.tobytes())
    assert np.isfinite(path).all()


@given(LATENTS, LATENTS, FRAMES)
def test_lengths_go_evenly_from_one_to_the_other(a: np.ndarray, b: np.ndarray, frames: int):
    assume_an_arc(a, b)

    assert np.allclose(length(slerp(a, b, frames)), np.linspace(length(a), length(b), frames), rtol=1e-5)


@given(LATENTS, LATENTS, FRAMES)
def test_directions_turn_in_order_by_equal_angles(a: np.ndarray, b: np.ndarray, frames: int):
    assume_an_arc(a, b)

    turned = [angle(a, z) for z in slerp(a, b, frames)]

    assert np.allclose(turned, np.linspace(0, angle(a, b), frames), atol=1e-3)


@given(LATENTS, LATENTS, FRAMES)
def test_the_way_back_is_the_way(a: np.ndarray, b: np.ndarray, frames: int):
    assume_an_arc(a, b)

    assert np.allclose(slerp(a, b, frames)[::-1], slerp(b, a, frames), atol=1e-4)


@given(LATENTS, LATENTS, st.integers(3, 64))
def test_latents_of_equal_length_are_joined_by_shoemakes_formula(a: np.ndarray, b: np.ndarray, frames: int):
    assume_an_arc(a, b)
    b = (b * (length(a) / length(b))).astype(np.float32)
    omega = angle(a, b)

    expected = [
        (np.sin((1 - t) * omega) * a + np.sin(t * omega) * b) / np.sin(omega)
        for t in np.linspace(0, 1, frames)
    ]

    assert np.allclose(slerp(a, b, frames), expected, atol=1e-2)


def test_the_way_of_normal_latents_stays_on_their_sphere_where_a_straight_one_leaves_it():
    a, b = latent_of(1, 512), latent_of(2, 512)

    middle = slerp(a, b, 3)[1]

    assert length(middle) == pytest.approx((length(a) + length(b)) / 2)
    assert length((a + b) / 2) < 0.8 * length(middle)


@pytest.mark.parametrize(
    ("start", "end", "middle"),
    [
        ([0, 0, 0], [2, 0, 4], [1, 0, 2]),
        ([0, 0, 0], [0, 0, 0], [0, 0, 0]),
        ([1, 2, 2], [1, 2, 2], [1, 2, 2]),
        ([1, 2, 2], [2, 4, 4], [1.5, 3, 3]),
        ([3, 0, 0], [-1, 0, 0], [1, 0, 0]),
    ],
)
def test_without_a_shortest_arc_the_way_is_straight(start: list[int], end: list[int], middle: list[float]):
    path = slerp(np.array(start, np.float32), np.array(end, np.float32), 3)

    assert np.allclose(path[1], middle)


@pytest.mark.parametrize("turn", [1e-5, np.pi - 1e-5])
def test_narrow_and_wide_angles_keep_the_length(turn: float):
    a = np.array([3, 0], np.float32)
    b = 3 * np.array([np.cos(turn), np.sin(turn)], np.float32)

    assert np.allclose(length(slerp(a, b, 9)), 3, rtol=1e-3)


@given(LATENTS)
def test_truncation_1_leaves_every_bit_and_0_leaves_the_mean(z: np.ndarray):
    assert truncated(z, 1.0).tobytes() == z.tobytes()
    assert not truncated(z, 0.0).any()
    assert np.array_equal(truncated(z, 0.5), z / 2)
    assert truncated(z, 0.7).dtype == np.float32


@given(LATENTS)
def test_a_latent_travels_in_base64_with_all_its_bits(z: np.ndarray):
    assert decoded(encoded(z), Z_DIM).tobytes() == z.tobytes()


def test_the_bytes_of_a_latent_are_little_endian():
    text = base64.b64encode(struct.pack("<2f", 1.5, -2)).decode()

    assert decoded(text, 2).tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AAAA*AAA", "no base64"),
        ("AAAAA", "no base64"),
        ("é", "no base64"),
        ("", "^0 bytes$"),
        (encoded(np.zeros(4, np.float32)), "^16 bytes$"),
        (encoded(np.zeros(6, np.float32)), "^24 bytes$"),
        (encoded(np.array([0, 0, np.nan, 0, 0], np.float32)), "^nan at index 2$"),
        (encoded(np.array([0, 0, 0, 0, -np.inf], np.float32)), "^-inf at index 4$"),
    ],
)
def test_what_is_no_latent_is_told(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        decoded(text, Z_DIM)


def test_the_latent_of_a_seed():
    assert np.array_equal(of_seed(2**53 - 1, 7), latent_of(2**53 - 1, 7))


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_every_layer_gets_the_latent(shape: tuple[int, ...]):
    z = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    for layer in range(4):
        assert np.array_equal(layered(z, 4)[..., layer, :], z)


@pytest.mark.parametrize("first", range(4))
def test_later_layers_get_the_other_latent(first: int):
    z, other = np.ones((2, 4, 3), np.float32), np.arange(3, dtype=np.float32)

    mix = mixed(z, other, first)

    assert np.array_equal(mix[:, :first], z[:, :first])
    assert (mix[:, first:] == other).all()
    assert (z == 1).all()
