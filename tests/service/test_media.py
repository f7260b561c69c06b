import io

import numpy as np
import pytest
from brigantine import image, jpeg, png, text, webp
from PIL import Image


def pixels(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (5, 7, channels), dtype=np.uint8)  # [H, W, C]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_png_is_lossless(channels: int, mode: str):
    media = png(pixels(channels), label="seven")

    decoded = Image.open(io.BytesIO(media.body))
    assert (media.type, media.info, decoded.mode) == ("image/png", {"label": "seven"}, mode)
    assert np.array_equal(np.asarray(decoded).reshape(5, 7, channels), pixels(channels))


def test_webp_is_lossless():
    decoded = Image.open(io.BytesIO(webp(pixels(3)).body))

    assert decoded.format == "WEBP"
    assert np.array_equal(np.asarray(decoded), pixels(3))


def test_jpeg_is_close():
    smooth = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[:, None, None], (1, 16, 1))  # [16, 16, 1]

    decoded = np.asarray(Image.open(io.BytesIO(jpeg(smooth).body)))

    assert np.abs(decoded.astype(int) - smooth[:, :, 0]).max() < 8


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/jpeg"])
def test_an_image_is_of_the_type_asked_for(media_type: str):
    media = image(pixels(3), media_type)

    assert media.type == media_type == f"image/{(Image.open(io.BytesIO(media.body)).format or '').lower()}"


def test_text_is_utf8():
    assert text("grün") == text("grün")
    assert text("grün").body == "grün".encode()
