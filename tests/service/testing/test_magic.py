import io
import zipfile

import numpy as np
import pytest
from brigantine import animation, image, text, wav
from brigantine.testing.magic import mismatch

GOOD = {
    "application/geo+json": b'{"type": "Point"}',
    "application/ogg": b"OggS\0\2",
    "application/pdf": b"%PDF-1.7\n",
    "application/zip": b"PK\x05\x06" + bytes(18),
    "audio/flac": b"fLaC\0",
    "audio/mpeg": b"\xff\xfb\x90\0",
    "image/svg+xml": b'<?xml version="1.0"?><svg/>',
    "model/gltf-binary": b"glTF\2\0\0\0",
    "text/csv": "ü,1\n".encode(),
    "text/plain; charset=latin-1": b"\xfc",
    "video/mp4": b"\0\0\0\x18ftypisom",
    "video/webm": b"\x1aE\xdf\xa3\x01",
}


@pytest.mark.parametrize("media_type", GOOD)
def test_bytes_of_their_type_pass_and_others_do_not(media_type: str):
    assert mismatch(media_type, GOOD[media_type]) == ""
    assert mismatch(media_type, b"\xfe\xfdelse") or "latin-1" in media_type


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp", "image/gif"])
def test_what_our_own_encoders_make_passes_under_its_own_type_only(media_type: str):
    pixels = np.zeros((4, 4, 3), np.uint8)

    assert mismatch(media_type, image(pixels, media_type).body) == ""
    assert mismatch(media_type, wav(np.zeros(9, np.float32), 8000).body)
    if media_type != "image/jpeg":
        assert mismatch(media_type, animation(np.stack([pixels, pixels + 1]), media_type).body) == ""


def test_a_full_zip_a_wav_a_tagged_mp3_and_text_pass():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", "b")

    assert mismatch("application/zip", buffer.getvalue()) == ""
    assert mismatch("audio/wav", wav(np.zeros(9, np.float32), 8000).body) == ""
    assert mismatch("audio/mpeg", b"ID3\4") == ""
    assert mismatch(text("ü").type, text("ü").body) == ""


@pytest.mark.parametrize(
    ("media_type", "body", "expected"),
    [
        ("text/plain; charset=utf-8", b"\xfc", "text in utf-8"),
        ("text/plain; charset=no-such", b"a", "text in no-such"),
        ("application/ld+json", b"{", "JSON"),
        ("image/svg+xml", b"<html>", "SVG in UTF-8"),
        ("image/png", b"", "PNG, which begins with 89 PNG"),
    ],
)
def test_what_was_expected_is_said(media_type: str, body: bytes, expected: str):
    assert mismatch(media_type, body) == expected


def test_a_type_that_nobody_knows_passes():
    assert mismatch("chemical/x-xyz", b"\0") == ""
