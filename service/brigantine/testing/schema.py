"""A schema: what the JSON schema of Params says of each field, and whether it allows a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..plugin import Params

__all__ = ["Schema", "allows", "members", "schemas_of"]

Schema = Mapping[str, Any]


def schemas_of(params: type[Params]) -> dict[str, Schema]:
    """The schema of each field, by the name that a body has for it, with no references left in it."""
    schema = params.model_json_schema()
    defs = schema.get("$defs", {})
    if "$ref" in schema:  # it contains itself
        schema = defs[schema["$ref"].rpartition("/")[2]]
    return {name: _resolved(one, defs) for name, one in schema.get("properties", {}).items()}


def members(schema: Schema) -> list[Schema]:
    """The alternatives that a schema allows; itself when it has none."""
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return [member for one in schema[several] for member in members(one)]
    return [schema]


def allows(schema: Schema, value: object) -> bool:
    """Whether `value` is within the schema. What is not checked here (formats, say) counts as allowed."""
    return any(_allows(member, value) for member in members(schema))


def _resolved(schema: Any, defs: Mapping[str, Any]) -> Any:
    """Without `$ref`; what contains itself ends where it does."""
    if isinstance(schema, list):
        return [_resolved(one, defs) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    given = cast("dict[str, Any]", schema)
    if "$ref" in given:
        name = given["$ref"].rpartition("/")[2]
        fewer = {key: one for key, one in defs.items() if key != name}
        beside = {key: one for key, one in given.items() if key != "$ref"}
        return {**_resolved(defs.get(name, {}), fewer), **_resolved(beside, defs)}
    return {key: _resolved(one, defs) for key, one in given.items()}


def _allows(schema: Schema, value: object) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    if "const" in schema:
        return value == schema["const"]
    check = _CHECKS.get(schema.get("type", ""))
    return check is None or check(schema, value)


def _number(schema: Schema, value: object) -> bool:
    whole = schema["type"] == "integer"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or schema["exclusiveMinimum"] < value)
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


def _string(schema: Schema, value: object) -> bool:
    if not isinstance(value, str) or not _fits(schema, "Length", len(value)):
        return False
    try:
        return "pattern" not in schema or re.search(schema["pattern"], value) is not None
    except re.error:  # pydantic's own are of another dialect
        return True


def _array(schema: Schema, value: object) -> bool:
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return _fits(schema, "Items", len(items)) and all(allows(schema.get("items", {}), item) for item in items)


def _object(schema: Schema, value: object) -> bool:
    if not isinstance(value, dict):
        return False
    fields = cast("dict[str, object]", value)
    known = schema.get("properties", {})
    return _fits(schema, "Properties", len(fields)) and all(
        allows(known.get(key, {}), one) for key, one in fields.items()
    )


def _fits(schema: Schema, what: str, size: int) -> bool:
    return schema.get(f"min{what}", 0) <= size <= schema.get(f"max{what}", size)


_CHECKS: Mapping[str, Callable[[Schema, object], bool]] = {
    "array": _array,
    "boolean": lambda schema, value: isinstance(value, bool),
    "integer": _number,
    "null": lambda schema, value: value is None,
    "number": _number,
    "object": _object,
    "string": _string,
}
