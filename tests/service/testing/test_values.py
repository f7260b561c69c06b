"""Held against pydantic itself: what is within is taken, what is outside or wrong is refused."""

import datetime
import decimal
import enum
from typing import Annotated, Any, Literal

import pytest
from brigantine import Params
from brigantine.testing.schema import allows, schemas_of
from brigantine.testing.values import outside, within, wrong
from pydantic import BaseModel, Field, StrictInt, StrictStr, TypeAdapter, ValidationError, create_model


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int = Field(ge=0, le=5)
    word: str = Field(max_length=3)


Digit: Any = Annotated[int, Field(ge=0, le=9)]
Strict: Any = Annotated[StrictInt, Field(ge=0, le=9)]
KINDS: dict[str, Any] = {
    "int": Annotated[int, Field(ge=-3, le=20)],
    "exclusive": Annotated[int, Field(gt=0, lt=3)],
    "multiple": Annotated[int, Field(ge=1, le=60, multiple_of=8)],
    "strict": Annotated[StrictInt, Field(ge=0, le=2**53 - 1)],
    "float": Annotated[float, Field(ge=0, lt=1)],
    "text": Annotated[str, Field(min_length=2, max_length=5)],
    "pattern": Annotated[str, Field(max_length=12, pattern=r"^[a-z]*$")],
    "dialect": Annotated[str, Field(max_length=12, pattern=r"^\p{L}*$")],
    "optional": Digit | None,
    "union": Strict | Annotated[StrictStr, Field(max_length=4)] | None,
    "overlapping": Digit | Annotated[float, Field(ge=0, le=99)],
    "literal": Literal["a", "b"],
    "number": Literal[1, 2],
    "one": Literal["only"],
    "enum": Colour,
    "bool": bool,
    "list": Annotated[list[Digit], Field(min_length=1, max_length=3)],
    "tuple": tuple[Digit, Literal["a"]],
    "model": Point,
    "models": Annotated[list[Point], Field(max_length=2)],
    "date": datetime.date,
    "decimal": Annotated[decimal.Decimal, Field(ge=0, le=3)],
    "any": Any,
}
BOUNDED = KINDS.keys() - {"bool", "tuple", "date", "any"}


def schema(kind: Any) -> Any:
    params = create_model("AnyParams", __base__=Params, field=(kind, Field(default=None, description="Any.")))
    return schemas_of(params)["field"]


def takes(kind: Any, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", KINDS)
def test_pydantic_takes_what_is_within_and_refuses_what_is_outside_or_wrong(name: str):
    kind = KINDS[name]
    one = schema(kind)

    assert all(takes(kind, value) and allows(one, value) for value in within(one)) or name in (
        "dialect",
        "date",
        "decimal",
    )
    assert not any(takes(kind, bad.value) for bad in outside(one))
    assert not any(takes(kind, value) for value in wrong(one))
    assert bool(outside(one)) == (name in BOUNDED)
    assert bool(wrong(one)) == (name != "any")


def test_the_values_are_at_the_bounds_and_beside_them():
    assert within(schema(KINDS["int"])) == [-3, 20]
    assert [bad.value for bad in outside(schema(KINDS["int"]))] == [-4, 21]
    assert within(schema(KINDS["exclusive"])) == [1, 2]
    assert within(schema(KINDS["multiple"])) == [8, 56]
    assert within(schema(KINDS["union"])) == [0, 9, "", "xxxx", "\N{GRINNING FACE}" * 4, None]
    assert within(schema(KINDS["list"])) == [[0], [9, 9, 9]]
    assert within(schema(KINDS["models"])) == [[], [{"x": 5, "word": "\N{GRINNING FACE}" * 3}] * 2]
    assert [bad.bound for bad in outside(schema(KINDS["text"]))] == [
        "the longest has 5 characters",
        "the shortest has 2 characters",
    ]


def test_what_contains_itself_ends():
    class Tree(Params):
        left: "Tree | None" = Field(default=None, description="Another.")

    assert within(schemas_of(Tree)["left"]) == [{"left": None}, {"left": None}, None]
