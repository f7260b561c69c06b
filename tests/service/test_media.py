import io
import wave

import numpy as np
import pytest
from brigantine import animation, gif, image, jpeg, png, text, wav, webp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence


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


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/jpeg", "image/gif"])
def test_an_image_is_of_the_type_asked_for(media_type: str):
    media = image(pixels(3), media_type)

    assert media.type == media_type == f"image/{(Image.open(io.BytesIO(media.body)).format or '').lower()}"


def test_a_gif_of_greys_is_lossless():
    decoded = Image.open(io.BytesIO(gif(pixels(1), label="seven").body))

    assert decoded.format == "GIF"
    assert np.array_equal(np.asarray(decoded.convert("L")), pixels(1)[:, :, 0])


def test_a_gif_of_few_colours_is_lossless():
    decoded = Image.open(io.BytesIO(gif(pixels(3)).body)).convert("RGB")  # 35 of them

    assert np.array_equal(np.asarray(decoded), pixels(3))


def test_a_gif_of_many_colours_is_close():
    x, y = np.mgrid[:64, :64]
    smooth = np.stack([4 * x, 4 * y, 2 * (x + y)], axis=2).astype(np.uint8)  # 4096 colours

    decoded = np.asarray(Image.open(io.BytesIO(gif(smooth).body)).convert("RGB"))

    assert np.abs(decoded.astype(int) - smooth).mean() < 8


@pytest.mark.parametrize("channels", [2, 4])
def test_a_gif_leaves_alpha_out(channels: int):
    assert gif(pixels(channels)) == gif(pixels(channels)[:, :, : channels - 1])


def moving(channels: int, frames: int = 6) -> np.ndarray:
    """A patch that moves over a ground that stays: [frames, H, W, C]."""
    rng = np.random.default_rng(channels)
    film = np.repeat(rng.integers(0, 256, (1, 9, 12, channels), dtype=np.uint8), frames, axis=0)
    for index, frame in enumerate(film):
        frame[2:5, index : index + 3] = rng.integers(0, 256, (3, 3, channels))
    return film


def decoded_frames(body: bytes, mode: str) -> np.ndarray:
    return np.stack(
        [np.asarray(one.convert(mode)) for one in ImageSequence.Iterator(Image.open(io.BytesIO(body)))]
    )


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/gif"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_an_animation_has_every_frame(media_type: str, channels: int, mode: str):
    film = moving(channels)
    if channels in (2, 4):
        film[..., -1] |= 1  # WebP keeps no colour of what cannot be seen at all

    media = animation(film, media_type, label="seven", frames=6)

    if media_type == "image/gif" and channels in (2, 4):
        film, mode = film[..., :-1], mode[:-1]
    decoded = decoded_frames(media.body, mode)
    assert (media.type, media.info) == (media_type, {"label": "seven", "frames": 6})
    assert np.array_equal(decoded.reshape(film.shape), film)
    assert animation(film, media_type, label="seven", frames=6).body == animation(film, media_type).body


@given(st.integers(0, 2**32), st.sampled_from(["image/png", "image/webp", "image/gif"]), st.integers(2, 256))
def test_an_animation_of_greys_is_lossless(seed: int, media_type: str, greys: int):
    film = np.random.default_rng(seed).integers(0, greys, (4, 16, 17, 1), dtype=np.uint8)

    decoded = decoded_frames(animation(film, media_type).body, "L")

    assert np.array_equal(decoded, film[..., 0])


@pytest.mark.parametrize(
    ("media_type", "milliseconds"), [("image/png", 1000), ("image/webp", 1000), ("image/gif", 960)]
)
def test_an_animation_of_12_frames_lasts_a_second_and_goes_on_without_end(media_type: str, milliseconds: int):
    picture = Image.open(io.BytesIO(animation(moving(1, 9), media_type, per_second=9).body))
    default = Image.open(io.BytesIO(animation(moving(1, 9), media_type).body))

    def durations(of: Image.Image) -> float:
        total = 0.0
        for one in ImageSequence.Iterator(of):
            one.load()
            total += one.info["duration"]
        return total

    assert picture.info["loop"] == default.info["loop"] == 0
    assert durations(default) == pytest.approx(milliseconds * 9 / 12, abs=1)
    assert durations(picture) == pytest.approx(1000, abs=11 * 9)


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/gif"])
def test_an_animation_in_which_nothing_moves_is_one_picture(media_type: str):
    film = np.repeat(pixels(1)[None], 5, axis=0)

    assert np.array_equal(decoded_frames(animation(film, media_type).body, "L")[0], film[0, :, :, 0])


@pytest.mark.parametrize("media_type", ["image/jpeg", "text/plain"])
def test_what_has_no_frames_is_refused(media_type: str):
    with pytest.raises(ValueError, match=f"expected one with frames, image/png, .*, got {media_type}"):
        animation(moving(3), media_type)


def heard(body: bytes) -> tuple[tuple[int, int, int], np.ndarray]:
    """Channels, bytes of a sample and rate; and the samples [T, C]."""
    with wave.open(io.BytesIO(body)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getparams()[:3], samples.reshape(-1, file.getnchannels())


def test_a_wav_of_floats_is_clipped_and_rounded():
    samples = np.array([0, 1, -1, 2, -np.inf, 0.5, 1.4 / 32767, 1.6 / 32767], np.float32)

    media = wav(samples, 16_000, words="hm")

    assert (media.type, media.info) == ("audio/wav", {"words": "hm"})
    form, decoded = heard(media.body)
    assert form == (1, 2, 16_000)
    assert decoded[:, 0].tolist() == [0, 32767, -32767, 32767, -32767, 16384, 1, 2]


def test_a_wav_of_whole_numbers_keeps_them_and_its_channels():
    samples = np.array([[-32768, 32767], [0, 1], [2, -3]], np.int16)  # [T, C]

    form, decoded = heard(wav(samples, 44_100).body)

    assert form == (2, 2, 44_100)
    assert np.array_equal(decoded, samples)
    assert np.array_equal(heard(wav(samples.T.copy().T, 44_100).body)[1], samples)  # in any order in memory


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(3), r"expected float32 or int16 of the shape \[T\] or \[T, C\], got float64 \[3\]"),
        (np.zeros((1, 1, 3), np.float32), r"got float32 \[1, 1, 3\]"),
        (np.array([0, np.nan], np.float32), "expected numbers, got nan among them"),
    ],
)
def test_what_is_no_sound_is_refused(samples: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        wav(samples, 16_000)


def test_text_is_utf8():
    assert text("grün") == text("grün")
    assert text("grün").body == "grün".encode()
