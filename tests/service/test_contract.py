"""Each rule of the contract, broken once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from brigantine import Arrays, Media, Params, Plugin
from brigantine.contract import plural_of, violations
from brigantine_image import ImagePlugin
from pydantic import BaseModel, Field


class Nested(BaseModel):
    much: Annotated[int, Field(ge=0, le=9)] = 1


class Loose(BaseModel):
    much: int = 1


class InkParams(Params):
    pitch: float = Field(440.0, ge=20, le=8000, description="Hz.")
    kind: Literal["bell", "bowl"] = Field("bell", description="Which.")
    words: str | None = Field(None, max_length=80, description="To sing.")
    steps: list[Annotated[int, Field(ge=0, le=9)]] = Field([], max_length=3, description="Steps.")
    nested: Nested = Field(Nested(), description="More.")
    loud: bool = Field(False, description="Or not.")


class Ink(Plugin[InkParams]):
    name = "ink"
    content = "ink"
    types = ("image/png", "image/svg+xml")
    params = InkParams

    def prepare(self, params: InkParams, rng: np.random.Generator) -> Arrays:
        return {}

    def render(self, row: Arrays, params: InkParams, media_type: str) -> Media:
        return Media(media_type, b"")


def broken(**attributes: Any) -> type[Any]:
    return type("Ink", (Ink,), attributes)


def with_field(annotation: Any, field: Any) -> type[Any]:
    fields: Mapping[str, Any] = {
        "__annotations__": {"much": annotation},
        "much": field,
        "__module__": __name__,
    }
    return broken(params=type("InkParams", (Params,), dict(fields)))


async def soon(self: Any, batch: Arrays) -> Arrays:
    return batch


def test_a_good_plugin_breaks_none():
    assert violations(Ink, "ink") == []
    assert violations(ImagePlugin, "image") == []


@pytest.mark.parametrize(
    ("plugin", "rule", "message"),
    [
        (3, "subclass", "ink: expected a subclass of brigantine.Plugin, got 3; derive"),
        (Ink.prepare, "subclass", "expected a subclass"),
        (broken(name="Ink!"), "name", "Ink.name: expected 1 to 63 of a-z, 0-9, _ and -, got 'Ink!'"),
        (broken(name="pen"), "name", "Ink.name: expected 'ink', as its entry point or file, got 'pen'"),
        (broken(content=""), "content", "Ink.content: expected 1 to 63 of"),
        (broken(content=7), "content", "got 7"),
        (broken(plural="a/b"), "plural", "Ink.plural: expected 1 to 63 of"),
        (broken(content="model"), "plural", "Ink.plural: expected a word of its own, got one of the host's routes"),
        (broken(plural="plugins"), "plural", "a word of its own"),
        (broken(types=()), "types", "a tuple of MIME types, the default first, got ()"),
        (broken(types="image/png"), "types", "a tuple of MIME types"),
        (broken(types=("image/png; q=1",)), "types", "without parameters, got 'image/png; q=1'"),
        (broken(types=("application/json",)), "types", "none that the host makes itself"),
        (broken(isolation="thead"), "isolation", "'thread' or 'process', got 'thead'"),
        (type("Ink", (Plugin,), vars(Ink) | {"prepare": Plugin.prepare}), "method", "Ink.prepare(): expected a method"),
        (broken(generate=soon), "method", "Ink.generate(): expected a plain function, got a coroutine"),
        (broken(prepare=lambda self: {}), "method", "expected (self, params, rng), got (self)"),
        (broken(render=lambda self, row, *, params: 0), "method", "expected (self, row, params, media_type)"),
        (broken(params=dict), "params", "Ink.params: expected a subclass of brigantine.Params, got dict"),
        (with_field(int, Field(ge=0, le=1, description="x")), "field", "InkParams.much: expected a default, got"),
        (with_field(bool, False), "field", "InkParams.much: expected a description, got none"),
        (with_field(int, Field(0, description="x")), "bounds", "integer without a lower and an upper bound"),
        (with_field(float, Field(1, gt=0, description="x")), "bounds", "number without an upper bound"),
        (with_field(str, Field("", description="x")), "bounds", "string without a largest length"),
        (with_field(int | None, Field(None, description="x")), "bounds", "integer without a lower"),
        (with_field(list[bool], Field([], description="x")), "bounds", "array without a largest length"),
        (with_field(list[int], Field([], max_length=3, description="x")), "bounds", "integer without"),
        (with_field(dict[str, bool], Field({}, description="x")), "bounds", "object without a largest"),
        (with_field(Loose, Field(Loose(), description="x")), "bounds", "integer without"),
        (with_field(Any, Field(None, description="x")), "bounds", "any value"),
        (with_field(int, Field(11, ge=0, le=9, description="x")), "default", "InkParams.much: expected a default"),
        (
            with_field(bool, Field(default_factory=lambda: 1 / 0, description="x")),
            "default",
            "ZeroDivisionError",
        ),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_named(plugin: object, rule: str, message: str):
    found = violations(plugin, "ink")

    assert [one.rule for one in found] == [rule], found
    assert message in str(found[0])


class Nest(Params):
    """Params that contain themselves, which nothing bounds."""

    inner: Nest | None = Field(None, description="x")


def test_params_that_contain_themselves_have_no_largest_size():
    [found] = violations(broken(params=Nest), "ink")

    assert (found.rule, found.got) == ("bounds", "what contains itself")


@pytest.mark.parametrize("name", ["model", "n", "seed", "output_format", "response_format", "stream"])
def test_the_hosts_fields_are_its_own(name: str):
    fields = {"__annotations__": {name: bool}, name: Field(False, description="x"), "__module__": __name__}
    plugin = broken(params=type("InkParams", (Params,), fields))

    assert [one.rule for one in violations(plugin, "ink")] == ["field"]


def test_all_faults_are_told_at_once():
    plugin = broken(name="pen", types=(), params=dict)

    assert [one.rule for one in violations(plugin, "ink")] == ["name", "types", "params"]


@pytest.mark.parametrize(
    ("content", "plural"),
    [("chime", "chimes"), ("box", "boxes"), ("lens", "lenses"), ("torch", "torches"), ("brush", "brushes")],
)
def test_the_word_of_its_route_is_the_plural_of_its_content(content: str, plural: str):
    assert plural_of(broken(content=content)) == plural
    assert plural_of(broken(content=content, plural="many")) == "many"
