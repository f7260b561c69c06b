import io

import numpy as np
from brigantine.png import encode_png
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))


@given(SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_a_strict_reader_gets_every_pixel_back(pixels: np.ndarray):
    image = Image.open(io.BytesIO(encode_png(pixels)))
    image.load()  # checks the CRC of every chunk

    assert image.mode == ["L", "LA", "RGB", "RGBA"][pixels.shape[2] - 1]
    assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_a_view_that_is_not_contiguous_is_written_right():
    pixels = np.arange(7 * 8 * 3, dtype=np.uint8).reshape(8, 7, 3).transpose(1, 0, 2)[::2, ::-1]

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)
