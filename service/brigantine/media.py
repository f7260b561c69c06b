"""Media: one finished thing, and the encoders that make it from arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .png import encode_png

__all__ = ["Media", "image", "jpeg", "png", "text", "webp"]


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
    return _encode(pixels, "WEBP", info, lossless=True, quality=50, method=2)


def jpeg(pixels: NDArray[np.uint8], **info: Any) -> Media:
    """JPEG of `pixels`: uint8 [H, W, C] at quality 95. JPEG knows no alpha; it is left out."""
    opaque = pixels[:, :, :1] if pixels.shape[2] < 3 else pixels[:, :, :3]
    return _encode(opaque, "JPEG", info, quality=95)


def image(pixels: NDArray[np.uint8], media_type: str, **info: Any) -> Media:
    """Encode `pixels`, uint8 [H, W, C], as `media_type`: image/png, image/webp or image/jpeg."""
    return {"image/png": png, "image/webp": webp, "image/jpeg": jpeg}[media_type](pixels, **info)


def text(words: str, **info: Any) -> Media:
    """Plain text in UTF-8."""
    return Media("text/plain; charset=utf-8", words.encode(), info)


def _encode(pixels: NDArray[np.uint8], container: str, info: Mapping[str, Any], **options: Any) -> Media:
    grey = pixels.shape[2] == 1
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(buffer, container, **options)
    return Media(f"image/{container.lower()}", buffer.getvalue(), info)
