"""The slots of a cache: every sequence keeps what is its own, wherever it is moved, and beginnings are found again."""

import gc
from dataclasses import dataclass, field

import numpy as np
import psutil
import pytest
from brigantine.slots import Place, Slots
from brigantine.tensors import HostTensors
from hypothesis import given, settings
from hypothesis import strategies as st

CHUNK, CONTEXT = 4, 16


@dataclass(eq=False)
class Held:
    """A sequence as the test knows it; what a slot holds at each position is the token there."""

    place: Place
    tokens: list[int]
    length: int = 0


@dataclass
class Cache:
    """Writes tokens where a graph would write keys and values."""

    tensors: HostTensors = field(default_factory=lambda: HostTensors((2, 3, 1, CONTEXT, 1), np.float32))
    slots: Slots = field(init=False)

    def __post_init__(self) -> None:
        self.slots = Slots(self.tensors, CHUNK)

    def begin(self, tokens: list[int], reuse: bool = True) -> tuple[Held, int] | None:
        taken = self.slots.take(tokens, reuse)
        if taken is None:
            return None
        place, known = taken
        assert known % CHUNK == 0
        assert known < len(tokens)
        held = Held(place, tokens, known)
        assert self.content(held) == tokens[:known]
        for start in range(known, len(tokens), CHUNK):
            self._write(held, tokens[start : start + CHUNK])
            self.slots.has_read(place, tokens[: held.length])
        return held, known

    def grow(self, held: Held, token: int) -> None:
        held.tokens = [*held.tokens, token]
        self._write(held, [token])
        self.slots.have_grown([self.slots.slot_of(held.place)], [held.length - 1])

    def _write(self, held: Held, tokens: list[int]) -> None:
        slot = self.slots.slot_of(held.place)
        self.tensors.array[:, slot, 0, held.length : held.length + len(tokens), 0] = tokens
        held.length += len(tokens)

    def content(self, held: Held) -> list[int]:
        first, second = self.tensors.array[:, self.slots.slot_of(held.place), 0, : held.length, 0].tolist()
        assert first == second
        return first


actions = st.one_of(
    st.tuples(st.just("begin"), st.lists(st.integers(1, 2), min_size=1, max_size=10)),
    st.tuples(st.just("grow"), st.integers(0, 9)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("forget"), st.none()),
    st.tuples(st.just("gather"), st.sets(st.integers(0, 2), min_size=1)),
)


@settings(max_examples=300)
@given(st.lists(actions, max_size=40))
def test_every_sequence_keeps_what_is_its_own(several: list):
    cache, running = Cache(), list[Held]()
    for kind, what in several:
        if kind == "begin":
            begun = cache.begin(list(what))
            assert (begun is None) == (len(running) == 3)
            if begun is not None:
                running.append(begun[0])
            del begun
        elif kind == "forget":
            cache.slots.forget()
        elif not running:
            continue
        elif kind == "grow" and running[what % len(running)].length < CONTEXT:
            cache.grow(running[what % len(running)], 7)
        elif kind == "leave":
            running.pop(what % len(running))
        elif kind == "gather":
            chosen = [running[index] for index in what if index < len(running)]
            slots = cache.slots.gather([held.place for held in chosen])
            assert sorted(slots) == list(range(len(chosen)))
            del chosen
        assert [cache.content(held) for held in running] == [held.tokens for held in running]
        assert cache.slots.used == pytest.approx(sum(held.length for held in running) / (3 * CONTEXT))


def test_a_beginning_is_read_once_in_whole_chunks():
    cache = Cache()
    first, known = cache.begin([1, 1, 1, 1, 2, 2, 2, 2, 3])  # type: ignore[misc]
    assert known == 0
    beside, known = cache.begin([1, 1, 1, 1, 2, 2, 9])  # type: ignore[misc]
    assert known == 4  # copied from one that is still there
    del first
    again, known = cache.begin([1, 1, 1, 1, 2, 2, 2, 2, 3])  # type: ignore[misc]
    assert known == 8
    assert cache.content(again) == [1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert cache.content(beside) == [1, 1, 1, 1, 2, 2, 9]


def test_the_last_token_is_always_read_and_what_was_made_is_never_reused():
    cache = Cache()
    held, _ = cache.begin([1, 1, 1, 1])  # type: ignore[misc]
    for token in (5, 5, 5, 5):
        cache.grow(held, token)
    del held
    assert cache.begin([1, 1, 1, 1])[1] == 0  # type: ignore[index]
    assert cache.begin([1, 1, 1, 1, 5, 5, 5, 5, 1])[1] == 4  # type: ignore[index]


def test_only_a_beginning_that_another_slot_has_is_copied(monkeypatch: pytest.MonkeyPatch):
    cache, copies = Cache(), list[int]()
    monkeypatch.setattr(cache.tensors, "copy", lambda source, target, tokens: copies.append(tokens))
    first, _ = cache.slots.take([1] * 9, reuse=True)  # type: ignore[misc]
    cache.slots.has_read(first, [1] * 9)
    second = cache.slots.take([2] * 9, reuse=True)
    assert (second is not None, copies) == (True, [])
    third = cache.slots.take([1] * 9, reuse=True)
    assert (third is not None, copies) == (True, [8])


def test_what_is_forgotten_is_read_again_and_takes_no_memory():
    tensors = HostTensors((2, 3, 1, 1 << 20, 1), np.float32)
    slots, size = Slots(tensors, CHUNK), tensors.array.nbytes

    def taken() -> int:
        return psutil.Process().memory_info().rss - before

    before = psutil.Process().memory_info().rss
    tensors.array[:] = 1
    held, _ = slots.take([1] * 9, reuse=True)  # type: ignore[misc]
    slots.has_read(held, [1] * 9)
    slots.forget()
    assert tensors.array.all() and taken() > size / 2, "somebody has a place in it"
    del held

    slots.forget()

    assert taken() < size / 10
    assert slots.take([1] * 9, reuse=True)[1] == 0  # type: ignore[index]
    assert not tensors.array.any()


def test_one_may_ask_to_read_all_of_it():
    cache = Cache()
    cache.begin([1] * 9)
    assert cache.begin([1] * 9, reuse=False)[1] == 0  # type: ignore[index]


def test_the_slot_that_was_taken_longest_ago_is_given_away():
    cache = Cache()
    for word in (1, 2, 3):
        cache.begin([word] * 5)
    cache.begin([4] * 5)
    assert [cache.begin([word] * 5)[1] for word in (2, 3, 4, 1)] == [4, 4, 4, 0]  # type: ignore[index]


def test_a_place_is_free_as_soon_as_nothing_refers_to_it():
    gc.disable()
    try:
        cache = Cache()
        held = [cache.begin([1])[0] for _ in range(3)]  # type: ignore[index]
        assert cache.begin([1]) is None
        held.pop()
        assert cache.begin([1]) is not None
    finally:
        gc.enable()


def test_when_one_could_not_be_moved_the_others_are_found_where_they_are(monkeypatch: pytest.MonkeyPatch):
    cache = Cache(HostTensors((2, 4, 1, CONTEXT, 1), np.float32))
    held = [found[0] for token in range(4) if (found := cache.begin([token])) is not None]
    places = [one.place for one in held]
    assert cache.slots.gather(places[:2]) == (0, 1)
    swap, moved = cache.tensors.swap, []

    def fail_the_second(one: int, other: int, length: int) -> None:
        if moved:
            raise MemoryError
        moved.append((one, other))
        swap(one, other, length)

    monkeypatch.setattr(cache.tensors, "swap", fail_the_second)
    with pytest.raises(MemoryError):
        cache.slots.gather(places[2:])
    monkeypatch.undo()
    for some in ([0, 1], [2], [1, 2, 3]):
        slots = cache.slots.gather([places[one] for one in some])
        assert list(slots) == [cache.slots.slot_of(places[one]) for one in some]
    assert [cache.content(one) for one in held] == [[0], [1], [2], [3]]
    assert cache.slots.gather([]) == ()
