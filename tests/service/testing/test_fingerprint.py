from collections import UserDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from brigantine.testing.fingerprint import fingerprint

Pair = namedtuple("Pair", "one other")


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


@dataclass
class Plain:
    value: object


MAKERS = [
    lambda x: x,
    lambda x: [1, x],
    lambda x: (1, (x,)),
    lambda x: {"a": x},
    lambda x: {x},
    lambda x: UserDict({"a": x}),
    lambda x: Pair(x, 2),
    Slotted,
    Plain,
    lambda x: np.array([1, x]),
    np.float32,
    lambda x: np.array([None, x], object),
    np.random.default_rng,
    lambda x: float("nan") if x == 1 else float(x),
    lambda x: Plain([Slotted({"deep": np.full(3, x)})]),
]


@pytest.mark.parametrize("make", MAKERS)
def test_equal_content_has_the_same_fingerprint_and_other_content_another(make):  # type: ignore[no-untyped-def]
    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))


def test_the_type_and_the_shape_count():
    values = [1, 1.0, True, "1", b"1", [1], (1,), np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32)]

    assert len({fingerprint(value) for value in values}) == len(values)


def test_what_lies_beside_does_not_flow_together():
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert fingerprint([[1], 2]) != fingerprint([[1, 2]])


def test_the_order_of_a_mapping_does_not_count_and_drawing_from_a_generator_does():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    rng = np.random.default_rng(0)
    before = fingerprint(rng)
    rng.random()
    assert fingerprint(rng) != before


def test_what_contains_itself_ends():
    knot: list[object] = [1]
    knot.append(knot)

    assert fingerprint(knot) == fingerprint(knot)
