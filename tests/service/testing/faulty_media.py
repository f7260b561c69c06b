"""Plugins that break a rule about what is finished, or about what stays."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from brigantine import Arrays, BadParams, FieldError, Media, png, text, wav

from tests.service.testing.chimes import Chime, Rhyme
from tests.service.testing.fault import breaks


@breaks("media-type", says="Media of the type text/plain, got audio/wav")
class AlwaysWav(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return wav(row["wave"], 8000)


@breaks("media-type", says="Media of the type audio/wav, got bytes")
class Bare(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Any:
        return super().render(row, params, media_type).body


@breaks("media-type", says="no text today")
class Refusing(Chime):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        if media_type == "text/plain":
            raise BadParams([FieldError("words", "no text today", "some")])
        return super().render(row, params, media_type)


@breaks("media-bytes", says="audio/wav to be WAV")
class Painted(Chime):
    types = ("audio/wav",)

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return Media("audio/wav", png(np.zeros((4, 4, 1), np.uint8)).body)


@breaks("media-bytes", says="text in utf-8")
class Latin(Rhyme):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return Media("text/plain; charset=utf-8", f"\xfcber {row['said']}".encode("latin-1"))


@breaks("media-bytes", says="a body of bytes, got str")
class Stringy(Rhyme):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return Media("text/plain", str(row["said"]))  # type: ignore[arg-type]


@breaks("info", says="what JSON can express")
class Numpy(Rhyme):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return text(str(row["said"]), first=np.int64(1))


@breaks("info", says="names of its own, got seed")
class Seeded(Rhyme):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return text(str(row["said"]), seed=1)


@breaks("info", says="at most 4096 bytes")
class Verbose(Rhyme):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return text(str(row["said"]), all="x" * 5000)


class TwoWords(BadParams):
    def __init__(self, one: str, other: str) -> None:
        super().__init__([FieldError(one, other, "none")])


@breaks("picklable", says="TwoWords that can be sent")
class Stuck(Chime):
    def prepare(self, params: Any, rng: Any) -> Arrays:
        if params.pitch == 20:
            raise TwoWords("pitch", "less")
        return super().prepare(params, rng)


@breaks("picklable", "info", says="Media that can be sent")
class Lambda(Rhyme):
    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        return text(str(row["said"]), why=lambda: None)


@breaks("metric-labels", says="Labelled.content: expected 'audio' for ever, got 'chimes'")
class Labelled(Chime):
    def load(self) -> None:
        self.content = self.model.name  # type: ignore[misc]


@breaks("memory", says="KiB more for each call, most of it from faulty_media.py:")
class Leaking(Rhyme):
    def load(self) -> None:
        self.kept: list[bytes] = []

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        self.kept.append(bytes(1024))
        return super().render(row, params, media_type)


def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    return libc


@breaks("memory", says="outside of Python")
class LeakingNatively(Rhyme):
    libc = _libc()

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        self.libc.memset(self.libc.malloc(1024), 1, 1024)
        return super().render(row, params, media_type)
