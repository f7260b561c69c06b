"""Values to ask a field for: at its bounds, just outside them, and of another type."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .schema import Schema, allows, members

__all__ = ["Outside", "outside", "within", "wrong"]

_MOST = 16
"""Words of an enumeration that are tried."""
_UNRULY = "\0\n\"'<&%\N{GRINNING FACE}"
"""What breaks code that takes text for ASCII, HTML or a format."""


class Outside(NamedTuple):
    """A value that must be refused, and the bound that it is beyond."""

    value: Any
    bound: str


def within(schema: Schema) -> list[Any]:
    """The smallest and the largest value that the schema allows, or all of a few."""
    return [
        value
        for member in members(schema)
        for value in _listed(member) or _of(member, _WITHIN)
        if allows(schema, value)
    ]


def outside(schema: Schema) -> list[Outside]:
    """Values just beyond each bound; what another alternative of the schema allows is left out."""
    return [one for member in members(schema) for one in _beyond(member) if not allows(schema, one.value)]


def wrong(schema: Schema) -> list[Any]:
    """Values of other types, which not even pydantic's lax mode turns into one that is meant."""
    lists = [_WRONG[_kind(member)] for member in members(schema)]
    return [
        value for value in lists[0] if all(value in others for others in lists) and not allows(schema, value)
    ]


def _kind(schema: Schema) -> str:
    if "enum" in schema or "const" in schema:
        return "enum"
    kind = str(schema.get("type", ""))
    # A date, say, may be a number too.
    return "formatted" if kind == "string" and "format" in schema else kind if kind in _WRONG else ""


def _listed(schema: Schema) -> list[Any]:
    """All values of a schema that names them."""
    return list(schema.get("enum", ()))[:_MOST] or ([schema["const"]] if "const" in schema else [])


def _of(schema: Schema, table: Mapping[str, Callable[[Schema], list[Any]]]) -> list[Any]:
    make = table.get(schema.get("type", ""))
    return [] if make is None else make(schema)


def _beyond(schema: Schema) -> list[Outside]:
    listed = _listed(schema)
    if not listed:
        return _of(schema, _OUTSIDE)
    numbers = [value for value in listed if isinstance(value, int | float)]
    other = "no such value" if len(numbers) < len(listed) else max(numbers) + 1
    return [Outside(other, f"allowed are {', '.join(map(repr, listed))}")]


def _bounds(schema: Schema) -> list[Any]:
    whole = schema["type"] == "integer"
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        above = schema["exclusiveMinimum"]
        low = math.floor(above) + 1 if whole else math.nextafter(above, math.inf)
    if "exclusiveMaximum" in schema:
        below = schema["exclusiveMaximum"]
        high = math.ceil(below) - 1 if whole else math.nextafter(below, -math.inf)
    step = schema.get("multipleOf", 0)
    if whole and step:
        low = None if low is None else math.ceil(low / step) * step
        high = None if high is None else math.floor(high / step) * step
    return [value for value in (low, high) if value is not None]


def _beyond_number(schema: Schema) -> list[Outside]:
    def near(bound: float, sign: int) -> float:
        return bound + sign * (1 if schema["type"] == "integer" else max(1e-6, abs(bound) * 1e-6))

    rules = (
        ("minimum", -1, "the smallest is"),
        ("maximum", 1, "the largest is"),
        ("exclusiveMinimum", 0, "it must be above"),
        ("exclusiveMaximum", 0, "it must be below"),
    )
    return [
        Outside(near(schema[rule], sign) if sign else schema[rule], f"{words} {schema[rule]}")
        for rule, sign, words in rules
        if rule in schema and math.isfinite(schema[rule])
    ]


def _texts(schema: Schema) -> list[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    texts = ["x" * least, _UNRULY]
    return texts if most is None else [*texts, "x" * most, "\N{GRINNING FACE}" * most]


def _beyond_text(schema: Schema) -> list[Outside]:
    found: list[Outside] = []
    if "maxLength" in schema:
        most = schema["maxLength"]
        found.append(Outside("x" * (most + 1), f"the longest has {most} characters"))
    if least := schema.get("minLength", 0):
        found.append(Outside("x" * (least - 1), f"the shortest has {least} characters"))
    if "pattern" in schema:
        found.append(Outside(_UNRULY, f"it must match {schema['pattern']}"))
    return found


def _items(schema: Schema) -> list[Any]:
    """The fewest of the smallest items, and the most of the largest."""
    if "prefixItems" in schema:
        kinds = [within(item) for item in schema["prefixItems"]]
        return [[values[place] for values in kinds] for place in (0, -1)] if all(kinds) else []
    values = within(schema.get("items", {})) or [None]
    least = schema.get("minItems", 0)
    return [[values[0]] * least, [values[-1]] * schema.get("maxItems", least)]


def _beyond_items(schema: Schema) -> list[Outside]:
    if "prefixItems" in schema:
        return []
    item = next(iter(within(schema.get("items", {}))), None)
    least, found = schema.get("minItems", 0), list[Outside]()
    if "maxItems" in schema:
        found.append(
            Outside([item] * (schema["maxItems"] + 1), f"the longest has {schema['maxItems']} items")
        )
    if least:
        found.append(Outside([item] * (least - 1), f"the shortest has {least} items"))
    rest = [item] * max(0, least - 1)
    return found + [
        Outside([bad.value, *rest], f"in an item {bad.bound}") for bad in outside(schema.get("items", {}))
    ]


def _objects(schema: Schema) -> list[Any]:
    kinds = {name: within(one) for name, one in schema.get("properties", {}).items()}
    return [{name: values[place] for name, values in kinds.items() if values} for place in (0, -1)]


def _beyond_object(schema: Schema) -> list[Outside]:
    def bad_ones() -> Iterator[Outside]:
        good = _objects(schema)[0]
        for name, one in schema.get("properties", {}).items():
            for bad in outside(one):
                yield Outside({**good, name: bad.value}, f"in {name} {bad.bound}")

    return list(bad_ones())


_WITHIN: Mapping[str, Callable[[Schema], list[Any]]] = {
    "array": _items,
    "boolean": lambda schema: [False, True],
    "integer": _bounds,
    "null": lambda schema: [None],
    "number": _bounds,
    "object": _objects,
    "string": _texts,
}
_OUTSIDE: Mapping[str, Callable[[Schema], list[Any]]] = {
    "array": _beyond_items,
    "integer": _beyond_number,
    "number": _beyond_number,
    "object": _beyond_object,
    "string": _beyond_text,
}
_NO_SUCH = {"no such field": "no such value"}
_WRONG: Mapping[str, list[Any]] = {
    "": [],
    "array": [None, 7, "no such value", _NO_SUCH],
    "boolean": [None, 7.5, "no such value", [], _NO_SUCH],
    "enum": [None, 7.5, "no such value", [], _NO_SUCH],
    "formatted": [None, [], _NO_SUCH],
    "integer": [None, 7.5, "no such value", [], _NO_SUCH],
    "null": [7, 7.5, "no such value", [], _NO_SUCH],
    "number": [None, "no such value", [], _NO_SUCH],
    "object": [None, 7, "no such value", []],
    "string": [None, 7, 7.5, [], _NO_SUCH],
}
