"""What a request may do with the latent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brigantine import BadParams, Model, Session
from brigantine.errors import BrigantineError
from brigantine.png import encode_png
from brigantine_image import ImagePlugin

from tests.plugins.studio import (
    LAYER_DIM,
    LAYERS,
    drawn,
    encoded,
    frames,
    latent_of,
    layered_model,
    media,
    opened,
)
from tests.tiny import LABELS, Z_DIM, tiny_model


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ImagePlugin:
    return opened(tiny_model(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> ImagePlugin:
    return opened(layered_model(tmp_path_factory.mktemp("models")))


def refused(plugin: ImagePlugin, **body: Any) -> str:
    with pytest.raises(BrigantineError) as caught:
        media(plugin, **body)
    assert isinstance(caught.value, BadParams)
    return str(caught.value)


def by_hand(plugin: ImagePlugin, z: np.ndarray, label: int | None = None) -> np.ndarray:
    """What the graph makes of a latent, without the plugin: uint8 [H, W, 1]."""
    labels = {} if label is None else {"label": np.array([label], np.int64)}
    return plugin.session.run({"z": z[None], **labels})["image"][0]


@pytest.mark.parametrize("body", [{}, {"truncation": 1.0}, {"truncation": 1, "frames": 16, "z": None}])
@pytest.mark.parametrize("seed", [0, 7, 2**53 - 1])
def test_without_control_the_bytes_are_those_of_the_seeds_latent_and_label(
    plugin: ImagePlugin, seed: int, body: dict[str, Any]
):
    rng = np.random.Generator(np.random.Philox(seed))
    z = rng.standard_normal(Z_DIM, dtype=np.float32)
    label = int(rng.integers(len(LABELS)))

    [medium] = media(plugin, seed=seed, **body)

    assert medium.body == encode_png(by_hand(plugin, z, label))
    assert medium.info == {"size": "8x8", "label": LABELS[label]}


@pytest.mark.parametrize("truncation", [0, 0.25, 0.5, 0.999])
def test_truncation_scales_the_latent(plugin: ImagePlugin, truncation: float):
    [medium] = media(plugin, seed=5, label=2, truncation=truncation)

    z = np.float32(truncation) * latent_of(5, Z_DIM)
    assert medium.body == encode_png(by_hand(plugin, z, 2))


def test_truncation_0_draws_the_same_for_every_seed(plugin: ImagePlugin):
    one, other = (media(plugin, seed=seed, label=0, truncation=0)[0].body for seed in (1, 2))

    assert one == other != media(plugin, seed=1, label=0)[0].body


def test_a_latent_may_be_given(plugin: ImagePlugin):
    z = np.array([0.5, -1, 2, 0], np.float32)

    [medium] = media(plugin, seed=5, label=1, z=encoded(z))

    assert medium.body == encode_png(by_hand(plugin, z, 1))


def test_the_label_beside_a_given_latent_is_the_seeds(plugin: ImagePlugin):
    for seed in range(8):
        own = encoded(latent_of(seed, Z_DIM))

        assert media(plugin, seed=seed, z=own) == media(plugin, seed=seed)


def test_a_given_latent_is_truncated_too(plugin: ImagePlugin):
    z = latent_of(3, Z_DIM)

    assert media(plugin, z=encoded(z), truncation=0.5) == media(plugin, z=encoded(z * np.float32(0.5)))


@pytest.mark.parametrize(
    ("z", "came"),
    [
        ("not base64!", r"no base64"),
        (encoded(np.zeros(3, np.float32)), "12 bytes"),
        (encoded(np.array([0, np.inf, 0, 0], np.float32)), "inf at index 1"),
    ],
)
def test_a_wrong_latent_is_refused_with_what_was_expected(plugin: ImagePlugin, z: str, came: str):
    expected = "z: expected base64 of 4 finite little-endian float32 values, 16 bytes, got "

    assert refused(plugin, z=z) == expected + came


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"truncation": 1.5}, "truncation: expected less than or equal to 1, got 1.5"),
        ({"truncation": -0.1}, "truncation: expected greater than or equal to 0, got -0.1"),
        ({"truncation": float("nan")}, "truncation: expected a finite number, got nan"),
        ({"truncation": "0.5"}, "truncation: expected a valid number, got '0.5'"),
        ({"z": [0.5, -1]}, "z: expected base64 of little-endian float32 values, in a string, got [0.5, -1]"),
        ({"z": "A" * 349_529}, "z: expected string should have at most 349528 characters"),
        ({"to_seed": 2**53}, "to_seed: expected less than or equal to 9007199254740991"),
        ({"to_seed": 1, "frames": 1}, "frames: expected greater than or equal to 2, got 1"),
        ({"to_seed": 1, "frames": 65}, "frames: expected less than or equal to 64, got 65"),
        ({"frames": 8}, "frames: expected to_seed beside it, where the animation ends, got 8 alone"),
        ({"mix_from": 64}, "mix_from: expected less than or equal to 63, got 64"),
        ({"mix_from": 2}, "mix_from: expected mix_seed beside it, for the layers from there on, got 2 alone"),
        (
            {"mix_seed": 3},
            "mix_seed: expected no mix_seed: the latent of the model tiny has no layers, got 3",
        ),
        ({"label": 65_536}, "label: expected less than or equal to 65535"),
        ({"label": -1}, "label: expected greater than or equal to 0"),
    ],
)
def test_what_cannot_be_done_is_named(plugin: ImagePlugin, body: dict[str, Any], message: str):
    assert refused(plugin, **body).startswith(message)


def test_all_that_is_wrong_is_named_at_once(plugin: ImagePlugin):
    assert refused(plugin, frames=8, mix_from=2) == refused(plugin, frames=8) + "; " + refused(
        plugin, mix_from=2
    )


def test_plainly_every_layer_gets_the_latent(layered: ImagePlugin):
    z = np.tile(latent_of(9, LAYER_DIM), (LAYERS, 1))  # [LAYERS, LAYER_DIM]

    [medium] = media(layered, seed=9)

    assert medium.body == encode_png(by_hand(layered, z))
    assert medium.info == {"size": "8x8"}


@pytest.mark.parametrize(("mix_from", "first"), [(0, 0), (1, 1), (3, 3), (None, 2)])
@pytest.mark.parametrize("truncation", [1, 0.5])
def test_later_layers_are_drawn_from_another_seed(
    layered: ImagePlugin, mix_from: int | None, first: int, truncation: float
):
    z = np.tile(latent_of(9, LAYER_DIM), (LAYERS, 1))
    z[first:] = latent_of(4, LAYER_DIM)

    [medium] = media(layered, seed=9, mix_seed=4, mix_from=mix_from, truncation=truncation)

    assert medium.body == encode_png(by_hand(layered, np.float32(truncation) * z))


def test_a_layer_that_is_not_there_is_refused(layered: ImagePlugin):
    message = "mix_from: expected a layer from 0 to 3, which the model layered has, got 4"

    assert refused(layered, mix_seed=1, mix_from=4) == message


def test_a_given_latent_has_z_dim_values_whatever_the_layers(layered: ImagePlugin):
    assert media(layered, z=encoded(latent_of(9, LAYER_DIM))) == media(layered, seed=9)
    assert "6 finite" in refused(layered, z=encoded(np.zeros(LAYERS * LAYER_DIM, np.float32)))


def test_an_animation_mixes_in_every_frame(layered: ImagePlugin):
    moving = drawn(layered, seed=9, to_seed=2, frames=3, mix_seed=4, mix_from=1, truncation=0.8)

    still = {"mix_seed": 4, "mix_from": 1, "truncation": 0.8}
    assert np.array_equal(moving[0], drawn(layered, seed=9, **still)[0])
    assert np.array_equal(moving[2], drawn(layered, seed=2, **still)[0])
    assert not np.array_equal(moving[1], drawn(layered, seed=9, to_seed=2, frames=3)[1])


@pytest.mark.parametrize("media_type", ["image/gif", "image/webp"])
def test_a_plain_picture_is_still_in_every_type(plugin: ImagePlugin, media_type: str):
    [medium] = media(plugin, media_type, seed=3)
    [picture] = frames(medium)

    assert (medium.type, medium.info) == (media_type, media(plugin, seed=3)[0].info)
    assert np.array_equal(picture, drawn(plugin, seed=3)[0])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"z": ("float32", ["batch", "z_dim"])}, r"all but the batch fixed, got \['batch', 'z_dim'\]"),
        (
            {"z": ("float32", ["batch", "layers", 4])},
            r"all but the batch fixed, got \['batch', 'layers', 4\]",
        ),
        (
            {"z": ("float32", ["batch", 2, 2, 4])},
            r"expected z as \[batch, z_dim\] or \[batch, layers, z_dim\]",
        ),
        ({"z": ("float32", ["batch"])}, r"expected z as \[batch, z_dim\]"),
        ({"z": ("float16", ["batch", 4])}, "expected z in float32 and image in uint8, got float16 and uint8"),
        ({"image": ("float32", ["batch", 8, 8, 1])}, "image in uint8, got float32 and float32"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(tmp_path: Path, tensors: dict[str, Any], message: str):
    specs = {"z": ("float32", ["batch", 4]), "image": ("uint8", ["batch", 8, 8, 1])} | tensors
    z, picture = ([{"name": name, "dtype": dtype, "shape": shape}] for name, (dtype, shape) in specs.items())

    model = Model.open(tiny_model(tmp_path, inputs=z, outputs=picture))

    with pytest.raises(ValueError, match=message):
        ImagePlugin(model, Session(model, None))


def test_a_film_of_large_pictures_is_shorter(plugin: ImagePlugin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plugin, "frame_bytes", 8 * 2**20)

    assert (
        refused(plugin, to_seed=1, frames=5)
        == "frames: expected at most 4 of pictures as large as this model's, got 5"
    )
    assert refused(plugin, to_seed=1).startswith("frames: expected at most 4")
    drawn(plugin, to_seed=1, frames=4)
