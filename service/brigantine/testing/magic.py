"""Magic bytes: whether the bytes of a medium are of the type that it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import orjson

__all__ = ["mismatch"]


def mismatch(media_type: str, body: bytes) -> str:
    """How a body of `media_type` should be, when it is not; empty when it is, or when the type is not known here."""
    kind, _, parameters = media_type.partition(";")
    if kind.endswith("+json") or kind == "application/json":
        return "" if _is_json(body) else "JSON"
    if kind.startswith("text/"):
        return _text(parameters, body)
    if kind not in _KNOWN:
        return ""
    words, check = _KNOWN[kind]
    return "" if check(body) else words


def _text(parameters: str, body: bytes) -> str:
    named = re.search(r"charset=\"?([\w.:-]+)", parameters, re.IGNORECASE)
    charset = named.group(1) if named else "utf-8"
    try:
        body.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return f"text in {charset}"
    return ""


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_svg(body: bytes) -> bool:
    return b"<svg" in body and not _text("", body)


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda body: body.startswith(starts)


def _riff(form: bytes) -> Callable[[bytes], bool]:
    return lambda body: body[:4] == b"RIFF" and body[8:12] == form


def _is_mp3(body: bytes) -> bool:
    """A tag, or a frame's eleven bits that are set."""
    return body[:3] == b"ID3" or (len(body) > 1 and body[0] == 0xFF and body[1] & 0xE0 == 0xE0)


_Known = tuple[str, Callable[[bytes], bool]]
_OGG: _Known = "Ogg, which begins with OggS", _begins(b"OggS")
_MP4: _Known = "MP4, which has ftyp at byte 4", lambda body: body[4:8] == b"ftyp"
_WAV: _Known = "WAV, which begins with RIFF....WAVE", _riff(b"WAVE")
_KNOWN: Mapping[str, _Known] = {
    "application/ogg": _OGG,
    "application/pdf": ("PDF, which begins with %PDF-", _begins(b"%PDF-")),
    "application/x-npy": ("a numpy file, which begins with 93 NUMPY", _begins(b"\x93NUMPY")),
    "application/zip": ("ZIP, which begins with PK", _begins(b"PK\x03\x04", b"PK\x05\x06")),
    "audio/flac": ("FLAC, which begins with fLaC", _begins(b"fLaC")),
    "audio/mp4": _MP4,
    "audio/mpeg": ("MP3, which begins with ID3 or a frame", _is_mp3),
    "audio/ogg": _OGG,
    "audio/wav": _WAV,
    "audio/x-wav": _WAV,
    "image/gif": ("GIF, which begins with GIF87a or GIF89a", _begins(b"GIF87a", b"GIF89a")),
    "image/jpeg": ("JPEG, which begins with ff d8 ff", _begins(b"\xff\xd8\xff")),
    "image/png": ("PNG, which begins with 89 PNG", _begins(b"\x89PNG\r\n\x1a\n")),
    "image/svg+xml": ("SVG in UTF-8", _is_svg),
    "image/webp": ("WebP, which begins with RIFF....WEBP", _riff(b"WEBP")),
    "model/gltf-binary": ("GLB, which begins with glTF", _begins(b"glTF")),
    "video/mp4": _MP4,
    "video/ogg": _OGG,
    "video/webm": ("WebM, which begins with 1a 45 df a3", _begins(b"\x1aE\xdf\xa3")),
}
