"""The contract, as far as a plugin's class shows whether it keeps it. The rest shows at the warm-up.

Each rule says what it expected, what came, and what to do about it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from pydantic import ValidationError

from .plugin import Params, Plugin
from .request import RESERVED

__all__ = ["SLUG", "Violation", "plural_of", "plural_of_word", "violations"]

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Names of plugins, and the words in their routes and metrics."""
_MIME = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,62}")  # RFC 6838, section 4.2, in small letters
_ROUTES = ("models", "plugins")
_METHODS = ("load", "prepare", "generate", "step", "leave", "render")
_BOUNDED_FORMATS = frozenset({"date", "date-time", "duration", "ipv4", "ipv6", "time", "uuid"})


class Violation(NamedTuple):
    """A rule that a plugin breaks."""

    rule: str
    """Its name: `subclass`, `name`, `content`, `plural`, `types`, `isolation`, `method`, `params`, `field`, `bounds` or
    `default`."""
    where: str
    """What breaks it, such as `ChimeParams.pitch`."""
    expected: str
    got: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, got {self.got}; {self.remedy}"


def violations(plugin: object, name: str) -> list[Violation]:
    """All rules that `plugin` breaks, which is offered under `name`; none when its class keeps the contract."""
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        return [
            Violation(
                "subclass", name, "a subclass of brigantine.Plugin", _told(plugin), "derive the class from it"
            )
        ]
    kind = cast("type[Plugin[Any]]", plugin)
    return [*_names(kind, name), *_types(kind), *_methods(kind), *_params(kind)]


def plural_of(plugin: type[Plugin[Any]]) -> str:
    """The word in its route `POST /v1/<plural>/generations`."""
    return plugin.plural or plural_of_word(plugin.content)


def plural_of_word(word: str) -> str:
    """The plural, as English makes most of them."""
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


def _names(kind: type[Plugin[Any]], name: str) -> Iterator[Violation]:
    slug = "1 to 63 of a-z, 0-9, _ and -"
    own = getattr(kind, "name", None)
    if not (isinstance(own, str) and SLUG.fullmatch(own)):
        yield Violation("name", f"{kind.__qualname__}.name", slug, _told(own), 'say name = "chime", or such')
    elif own != name:
        yield Violation(
            "name",
            f"{kind.__qualname__}.name",
            f"{name!r}, as its entry point or file",
            _told(own),
            "make them equal",
        )
    for rule in ("content", "plural"):
        word = getattr(kind, rule, None)
        if not (isinstance(word, str) and SLUG.fullmatch(word or ("" if rule == "content" else "s"))):
            yield Violation(
                rule, f"{kind.__qualname__}.{rule}", slug, _told(word), f'say {rule} = "audio", or such'
            )
    if (getattr(kind, "plural", "") or plural_of_word(str(getattr(kind, "content", "")))) in _ROUTES:
        yield Violation(
            "plural",
            f"{kind.__qualname__}.plural",
            "a word of its own",
            "one of the host's routes",
            'say plural = "..."',
        )
    if kind.isolation not in ("thread", "process"):
        yield Violation(
            "isolation",
            f"{kind.__qualname__}.isolation",
            "'thread' or 'process'",
            _told(kind.isolation),
            "leave it out for threads",
        )


def _types(kind: type[Plugin[Any]]) -> Iterator[Violation]:
    where, remedy = f"{kind.__qualname__}.types", 'say types = ("audio/wav",), or such'
    types: Any = getattr(kind, "types", None)
    if not isinstance(types, tuple) or not types:
        yield Violation("types", where, "a tuple of MIME types, the default first", _told(types), remedy)
        return
    for one in cast("tuple[object, ...]", types):
        if not (isinstance(one, str) and _MIME.fullmatch(one)):
            yield Violation(
                "types", where, "MIME types in small letters, without parameters", _told(one), remedy
            )
        elif one in ("application/json", "text/event-stream"):
            yield Violation(
                "types", where, "none that the host makes itself", _told(one), "put facts into Media's info"
            )


def _methods(kind: type[Plugin[Any]]) -> Iterator[Violation]:
    for method in _METHODS:
        own: Callable[..., Any] = getattr(kind, method)
        where = f"{kind.__qualname__}.{method}()"
        if getattr(own, "__isabstractmethod__", False):
            yield Violation(
                "method", where, "a method", "none", "write it; brigantine.Plugin says what it does"
            )
        elif inspect.iscoroutinefunction(own) or inspect.isgeneratorfunction(own):
            yield Violation(
                "method",
                where,
                "a plain function",
                "a coroutine or generator",
                "it runs in a thread of its own",
            )
        elif fault := _signature(own, getattr(Plugin, method)):
            yield Violation("method", where, *fault, "take what the host gives, by position")


def _signature(own: Callable[..., Any], ours: Callable[..., Any]) -> tuple[str, str] | None:
    """What was expected and what came, when `own` cannot be called as `ours` is."""
    given = list(inspect.signature(ours).parameters)
    try:
        inspect.signature(own).bind(*given)
    except TypeError:
        return f"({', '.join(given)})", str(inspect.signature(own))
    return None


def _params(kind: type[Plugin[Any]]) -> Iterator[Violation]:
    params: Any = getattr(kind, "params", None)
    if not (isinstance(params, type) and issubclass(params, Params)):
        where = f"{kind.__qualname__}.params"
        yield Violation(
            "params", where, "a subclass of brigantine.Params", _told(params), "derive one from it"
        )
        return
    schema: dict[str, Any] = params.model_json_schema()
    if "$ref" in schema:  # Params that contain themselves
        schema = {**schema["$defs"][schema["$ref"].rpartition("/")[2]], "$defs": schema["$defs"]}
    for field, info in params.model_fields.items():
        where = f"{params.__qualname__}.{field}"
        if field in RESERVED:
            yield Violation(
                "field",
                where,
                "a name of its own",
                "one of the host's",
                f"{', '.join(sorted(RESERVED))} are taken",
            )
        if info.is_required():
            yield Violation("field", where, "a default", "none", "every field must have one")
        if not info.description:
            yield Violation(
                "field",
                where,
                "a description",
                "none",
                'say Field(description="..."): /docs shows it to clients',
            )
        if loose := _unbounded(schema["properties"].get(info.alias or field, {}), schema.get("$defs", {})):
            yield Violation(
                "bounds", where, "bounds", loose, "say Field(ge=..., le=...), max_length=..., or a Literal"
            )
    yield from _defaults(params)


def _defaults(params: type[Params]) -> Iterator[Violation]:
    if any(info.is_required() for info in params.model_fields.values()):
        return
    try:
        params.model_validate(params().model_dump(by_alias=True))
    except ValidationError as error:
        for fault in error.errors():
            where = ".".join([params.__qualname__, *map(str, fault["loc"])])
            yield Violation(
                "default", where, "a default within its own bounds", _told(fault["input"]), fault["msg"]
            )
    except Exception as error:
        yield Violation(
            "default", params.__qualname__, "defaults", f"{type(error).__name__}: {error}", "mend the factory"
        )


def _unbounded(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """What in a JSON schema has no bounds; empty when all has. Each request must have a largest size."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in defs:  # it was followed before
            return "what contains itself"
        return _unbounded(defs[name], {key: value for key, value in defs.items() if key != name})
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return next(filter(None, (_unbounded(one, defs) for one in schema[several])), "")
    if "enum" in schema or "const" in schema:
        return ""
    check = _CHECKS.get(schema.get("type", ""))
    return "any value" if check is None else check(schema, defs)


def _number(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    low = "minimum" in schema or "exclusiveMinimum" in schema
    high = "maximum" in schema or "exclusiveMaximum" in schema
    missing = [side for side, there in (("a lower", low), ("an upper", high)) if not there]
    return f"{schema['type']} without {' and '.join(missing)} bound" if missing else ""


def _string(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    bounded = "maxLength" in schema or schema.get("format") in _BOUNDED_FORMATS
    return "" if bounded else "string without a largest length"


def _array(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "maxItems" not in schema:
        return "array without a largest length"
    items = [
        *schema.get("prefixItems", ()),
        *([schema["items"]] if isinstance(schema.get("items"), dict) else ()),
    ]
    return next(filter(None, (_unbounded(item, defs) for item in items)), "")


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "properties" not in schema and "maxProperties" not in schema:
        return "object without a largest number of fields"
    return next(filter(None, (_unbounded(one, defs) for one in schema.get("properties", {}).values())), "")


def _unlimited(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    return ""


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
    "array": _array,
    "boolean": _unlimited,
    "integer": _number,
    "null": _unlimited,
    "number": _number,
    "object": _object,
    "string": _string,
}


def _told(value: Any) -> str:
    """A value as a message shows it."""
    text = value.__qualname__ if isinstance(value, type) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
