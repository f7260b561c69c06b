"""What waits in a lane: all of it comes out once, in its order, in batches that are no larger than they may be."""

from __future__ import annotations

from brigantine.intake import Intake
from brigantine.station import Order
from hypothesis import given
from hypothesis import strategies as st


def order(job: int, rows: int, first: int = 0) -> Order:
    return Order(job, {}, None, 0, "text/plain", first, rows)


def test_as_much_is_taken_as_fits_and_the_rest_next_time():
    intake = Intake(8)
    intake.add([order(1, 3), order(2, 2)], [])
    intake.add([order(3, 6), order(4, 1)], [])

    assert intake.take() == ([order(1, 3), order(2, 2), order(3, 3)], [], 1)
    assert intake.take([9] * 5) == ([order(3, 3, first=3)], [], 0)
    assert not intake.is_empty
    assert intake.take([9] * 7) == ([order(4, 1)], [], 1)
    assert intake.is_empty


def test_what_is_gone_makes_room_at_once_wherever_it_is():
    intake = Intake(4)
    intake.add([order(1, 1)], [])
    assert intake.take([5, 6, 7, 8]) == ([], [], 0)
    intake.add([order(2, 2), order(3, 1)], [7, 2])

    assert intake.take([5, 6, 7, 8]) == ([order(1, 1)], [7, 2], 1)
    assert intake.take([1, 5, 6]) == ([order(3, 1)], [], 1)


def test_a_put_of_nothing_is_taken_up_at_once():
    intake = Intake(4)
    intake.add([], [7])

    assert intake.take([8] * 4) == ([], [7], 1)


@given(st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=8), st.integers(1, 9))
def test_each_row_comes_out_once_and_in_its_order(puts: list[list[int]], max_batch: int):
    intake = Intake(max_batch)
    expected: list[tuple[int, int]] = []
    for number, sizes in enumerate(puts):
        intake.add([order(10 * number + job, rows) for job, rows in enumerate(sizes)], [])
        expected += [(10 * number + job, row) for job, rows in enumerate(sizes) for row in range(rows)]
    found: list[tuple[int, int]] = []
    taken_up = 0
    while not intake.is_empty:
        orders, _, count = intake.take()
        rows = [(one.job, one.first + row) for one in orders for row in range(one.rows)]
        left = len(expected) - len(found)
        assert len(rows) == min(max_batch, left), "full, as long as there is enough"
        found += rows
        taken_up += count

    assert found == expected
    assert taken_up == len(puts)
