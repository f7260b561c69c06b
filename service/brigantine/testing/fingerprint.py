"""A fingerprint: what tells whether a value has changed, whatever it consists of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Set
from typing import Any, cast

import numpy as np

__all__ = ["fingerprint"]


def fingerprint(value: object) -> bytes:
    """The same for values with the same content; of what shows no content, the type alone counts."""
    digest = hashlib.blake2b(digest_size=16)
    for token in _tokens(value, ()):
        digest.update(len(token).to_bytes(8, "little") + token)
    return digest.digest()


def _tokens(value: object, above: tuple[int, ...]) -> Iterator[bytes]:
    """`above` has the identities of what `value` lies in: some things contain themselves."""
    yield type(value).__name__.encode()
    if id(value) in above:
        return
    leaf = _leaf(value)
    if leaf is not None:
        yield leaf
        return
    parts = _parts(value)
    yield str(len(parts)).encode()
    for part in parts:
        yield from _tokens(part, (*above, id(value)))


def _leaf(value: object) -> bytes | None:
    """The content of what has no parts; None for all else."""
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return None if array.dtype.hasobject else f"{array.dtype} {array.shape}".encode() + array.tobytes()
    simple = bool | int | float | complex | str | bytes | bytearray | np.generic | None
    return repr(value).encode() if isinstance(value, simple) else None


def _parts(value: object) -> list[object]:
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return [array.shape, *array.ravel().tolist()]
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return [part for key in sorted(pairs, key=repr) for part in (key, pairs[key])]
    if isinstance(value, list | tuple):
        return list(cast("list[object]", value))
    if isinstance(value, Set):
        return [*sorted(fingerprint(item) for item in cast("Set[object]", value))]
    if isinstance(value, np.random.Generator):
        return [value.bit_generator.state]
    return [_fields(value)]


def _fields(value: object) -> dict[str, object]:
    """The attributes of an instance, those in slots too."""
    slots = [name for kind in type(value).__mro__ for name in _listed(vars(kind).get("__slots__", ()))]
    there = {
        name: getattr(value, name) for name in slots if not name.startswith("__") and hasattr(value, name)
    }
    return there | getattr(value, "__dict__", {})


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
