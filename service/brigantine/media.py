"""Media: one finished thing, and the encoders that make it from arrays."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .png import encode_png

__all__ = ["Media", "animation", "gif", "image", "jpeg", "png", "text", "wav", "webp"]

_WEBP: dict[str, Any] = {"lossless": True, "quality": 50, "method": 2}
_ANIMATED: dict[str, tuple[str, dict[str, Any]]] = {
    "image/png": ("PNG", {}),
    "image/webp": ("WEBP", _WEBP),
    "image/gif": ("GIF", {}),
}
"""Media types that have frames, with Pillow's word and options for each."""


@dataclass(frozen=True, slots=True)
class Media:
    """What one row of a request became."""

    type: str
    """Its MIME type, such as `image/png`."""
    body: bytes
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Small JSON-able facts that a client wants beside the bytes, such as the label that was drawn."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Media, (self.type, self.body, self.info)  # half the time of what a dataclass does by itself


def png(pixels: NDArray[np.uint8], **info: Any) -> Media:
    """Lossless PNG of `pixels`: uint8 [H, W, C], C = 1 (grey), 2 (with alpha), 3 (RGB) or 4 (RGBA)."""
    return Media("image/png", encode_png(pixels), info)


def webp(pixels: NDArray[np.uint8], **info: Any) -> Media:
    """Lossless WebP of `pixels`: uint8 [H, W, C]. WebP knows no grey, so C = 1 becomes RGB."""
    return _encode(pixels, "WEBP", info, **_WEBP)


def jpeg(pixels: NDArray[np.uint8], **info: Any) -> Media:
    """JPEG of `pixels`: uint8 [H, W, C] at quality 95. JPEG knows no alpha; it is left out."""
    return _encode(pixels, "JPEG", info, quality=95)


def gif(pixels: NDArray[np.uint8], **info: Any) -> Media:
    """GIF of `pixels`: uint8 [H, W, C]. Up to 256 colours, and so all greys, are kept; alpha is left out."""
    return _encode(pixels, "GIF", info)


def image(pixels: NDArray[np.uint8], media_type: str, **info: Any) -> Media:
    """Encode `pixels`, uint8 [H, W, C], as `media_type`: image/png, image/webp, image/jpeg or image/gif."""
    return {"image/png": png, "image/webp": webp, "image/jpeg": jpeg, "image/gif": gif}[media_type](
        pixels, **info
    )


def animation(
    frames: NDArray[np.uint8], media_type: str, /, *, per_second: float = 12.0, **info: Any
) -> Media:
    """Encode `frames`, uint8 [frames, H, W, C], as pictures that follow each other without end.

    Equal frames in succession may become one that stays longer.

    Args:
        frames: at least one.
        media_type: image/png (APNG) or image/webp, which are lossless, or image/gif, which keeps what `gif` keeps.
        per_second: frames; a GIF counts its delays in hundredths of a second, so 12 become 12.5.
        info: as for every Media.

    Raises:
        ValueError: a picture of this type has no frames.
    """
    if media_type not in _ANIMATED:
        raise ValueError(f"media type: expected one with frames, {', '.join(_ANIMATED)}, got {media_type}")
    container, options = _ANIMATED[media_type]
    first, *others = (_picture(frame, container) for frame in frames)
    buffer = io.BytesIO()
    # A duration that is no whole number of milliseconds is rounded over all frames, not for each.
    first.save(
        buffer, container, save_all=True, append_images=others, duration=1000 / per_second, loop=0, **options
    )
    return Media(media_type, buffer.getvalue(), info)


def wav(samples: NDArray[np.float32 | np.int16], rate: int, **info: Any) -> Media:
    """WAV, 16 bit PCM, of `samples` [T] or [T, C].

    Args:
        samples: float32 from -1 to 1, which is clipped to this range and rounded; int16 is taken as it is.
        rate: samples a second.
        info: as for every Media.

    Raises:
        ValueError: the samples are of another type or shape, or not numbers.
    """
    if samples.ndim not in (1, 2) or str(samples.dtype) not in ("float32", "int16"):
        came = f"{samples.dtype} {list(samples.shape)}"
        raise ValueError(f"samples: expected float32 or int16 of the shape [T] or [T, C], got {came}")
    pcm = samples if samples.dtype == np.int16 else _pcm16(samples)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if pcm.ndim == 1 else pcm.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())  # `wave` takes them in the machine's byte order
    return Media("audio/wav", buffer.getvalue(), info)


def text(words: str, **info: Any) -> Media:
    """Plain text in UTF-8."""
    return Media("text/plain; charset=utf-8", words.encode(), info)


def _encode(pixels: NDArray[np.uint8], container: str, info: Mapping[str, Any], **options: Any) -> Media:
    buffer = io.BytesIO()
    _picture(pixels, container).save(buffer, container, **options)
    return Media(f"image/{container.lower()}", buffer.getvalue(), info)


def _picture(pixels: NDArray[np.uint8], container: str) -> Image.Image:
    """Of `pixels` [H, W, C], without what the container cannot hold: alpha, or more than 256 colours."""
    if container in ("GIF", "JPEG"):
        pixels = pixels[:, :, :1] if pixels.shape[2] < 3 else pixels[:, :, :3]
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return _few_colours(picture) if container == "GIF" and picture.mode == "RGB" else picture


def _few_colours(picture: Image.Image) -> Image.Image:
    """An RGB picture in at most 256 colours, which are its own where they suffice."""
    # Pillow's default, the median cut, takes a hundred times as long for many colours, and is hardly closer.
    suffice = picture.getcolors(256) is not None
    method = Image.Quantize.MEDIANCUT if suffice else Image.Quantize.FASTOCTREE
    return picture.quantize(256, method, dither=Image.Dither.NONE)


def _pcm16(samples: NDArray[Any]) -> NDArray[np.int16]:
    """Whole numbers from -32767 to 32767 for `samples` from -1 to 1, of any shape."""
    if np.isnan(samples).any():
        raise ValueError("samples: expected numbers, got nan among them")
    return np.rint(samples.clip(-1, 1) * np.float32(32_767)).astype(np.int16)
