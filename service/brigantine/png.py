"""A PNG writer that is as fast as its compression.

PNG (https://www.w3.org/TR/png-3/) is three chunks around one zlib stream, so the writer is short, and the stream comes
from zlib-ng, which compresses several times faster than zlib at the same size; `benchmarks/encoders.py` has the
figures. ISA-L was faster still for large pictures, but gave some processes other bytes for the same pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

__all__ = ["encode_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> colour type: grey, grey and alpha, RGB, RGBA."""
_WORD = struct.Struct(">I")
_NO_FILTER, _UP = 0, 2
_FAST, _SMALL = 1, 2
"""Levels of compression. The first makes as small files as the second of grey pictures, and larger ones of others."""
_compress = cast("Callable[[memoryview, int], bytes]", zlib_ng.compress)  # pyright: ignore[reportUnknownMemberType]


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless PNG of `pixels`, uint8 [H, W, C] with C from 1 to 4.

    Grey pictures go in as they are and others as differences from the row above: of the filters that cost one
    subtraction these give the smallest files.
    """
    height, width, channels = pixels.shape
    rows: NDArray[np.uint8] = cast(Any, pixels).reshape(height, width * channels)  # [H, W * C]
    lines = np.empty((height, 1 + width * channels), np.uint8)  # each line begins with its filter
    if channels == 1:
        lines[:, 0] = _NO_FILTER
        lines[:, 1:] = rows
    else:
        lines[:, 0] = _UP
        lines[0, 1:] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])  # modulo 256, as the standard wants it
    body = _compress(lines.data, _FAST if channels == 1 else _SMALL)
    return b"".join((_beginning(height, width, channels), *_chunk(b"IDAT", body), _END))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    return _WORD.pack(len(data)), kind, data, _WORD.pack(crc32(data, crc32(kind)))


@lru_cache
def _beginning(height: int, width: int, channels: int) -> bytes:
    """What comes before the pixels, of which a model makes one size."""
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join((_SIGNATURE, *_chunk(b"IHDR", header)))


_END = b"".join(_chunk(b"IEND", b""))
