"""A PNG writer that is as fast as its compression.

PNG (https://www.w3.org/TR/png-3/) is three chunks around one zlib stream, so the writer is short, and the stream comes
from ISA-L, which compresses several times faster than zlib at the same size. On 28x28 digits it takes a fifth
of Pillow's time at level 1 and 4% fewer bytes; on 256x256 photographs a ninth of the time and 17% fewer bytes; on
32x32 photographs a fifth of the time and 14% more bytes (`benchmarks/encoders.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import cast
from zlib import crc32

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

__all__ = ["encode_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> colour type: grey, grey and alpha, RGB, RGBA."""
_NO_FILTER, _UP = 0, 2
_LEVEL = 1
_compress = cast("Callable[[memoryview, int], bytes]", isal_zlib.compress)  # pyright: ignore[reportUnknownMemberType]


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless PNG of `pixels`, uint8 [H, W, C] with C from 1 to 4.

    Grey pictures go in as they are and others as differences from the row above: of the filters that cost one
    subtraction these give the smallest files.
    """
    height, width, channels = pixels.shape
    rows = np.reshape(pixels, (height, width * channels))  # [H, W * C]
    lines = np.empty((height, 1 + width * channels), np.uint8)  # each line begins with its filter
    if channels == 1:
        lines[:, 0] = _NO_FILTER
        lines[:, 1:] = rows
    else:
        lines[:, 0] = _UP
        lines[0, 1:] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])  # modulo 256, as the standard wants it
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    body = _compress(lines.data, _LEVEL)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", crc32(data, crc32(kind)))))
