"""A model that fails again and again rests, and comes back."""

from collections.abc import Callable

import pytest
from brigantine.breaker import Breaker
from brigantine.errors import BadRequest, GenerationFailed, ModelFailing


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def tries(breaker: Breaker, error: Exception | None = None) -> str:
    """What a request sees."""
    try:
        attempt = breaker.attempt()
    except ModelFailing:
        return "refused"
    attempt.end(error)
    if error is not None:
        return "failed"
    return "made"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown() -> list[bool]:
    return []


@pytest.fixture
def breaker(clock: Callable[[], float], shown: list[bool]) -> Breaker:
    return Breaker("tiny", 3, shown.append, clock)


def broken() -> GenerationFailed:
    return GenerationFailed("by nought")


def test_failures_in_a_row_make_it_rest_and_a_probe_brings_it_back(
    breaker: Breaker, clock: Clock, shown: list[bool]
):
    assert [tries(breaker, broken()) for _ in range(4)] == ["failed"] * 3 + ["refused"]
    assert shown == [True]
    clock.now += 1.01
    assert tries(breaker) == "made"
    assert [tries(breaker, broken()), tries(breaker)] == ["failed", "made"], "it counts anew"
    assert shown == [True, False]


def test_one_request_at_a_time_probes(breaker: Breaker, clock: Clock):
    for _ in range(3):
        tries(breaker, broken())
    clock.now += 1.01
    probe = breaker.attempt()
    assert tries(breaker) == "refused"
    probe.end(None)
    assert tries(breaker) == "made"


def test_a_probe_that_fails_makes_it_rest_longer_and_one_that_says_nothing_is_followed_by_another(
    breaker: Breaker, clock: Clock
):
    for _ in range(3):
        tries(breaker, broken())
    clock.now += 1.01
    assert tries(breaker, BadRequest("no JSON")) == "failed"
    assert tries(breaker, broken()) == "failed"
    clock.now += 1.5
    assert tries(breaker) == "refused", "for two seconds now"
    clock.now += 0.6
    assert tries(breaker) == "made"


def test_the_refusal_says_when_to_come_back(breaker: Breaker):
    for _ in range(3):
        tries(breaker, broken())

    with pytest.raises(
        ModelFailing, match="'tiny' failed 3 times in a row and rests; try again in 1 s"
    ) as caught:
        breaker.attempt()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1.0)


def test_successes_between_and_what_clients_get_wrong_do_not_count(breaker: Breaker):
    for _ in range(5):
        assert [tries(breaker, broken()), tries(breaker, broken()), tries(breaker)] == [
            "failed",
            "failed",
            "made",
        ]
    assert [tries(breaker, BadRequest("no JSON")) for _ in range(9)] == ["failed"] * 9
    assert tries(breaker) == "made"


def test_late_failures_of_what_ran_before_do_not_prolong_the_rest(breaker: Breaker, clock: Clock):
    for _ in range(3):
        tries(breaker, broken())
    for _ in range(5):
        breaker.end(broken(), probe=False)
    clock.now += 1.01
    assert tries(breaker) == "made"


def test_without_a_limit_it_never_rests(clock: Clock):
    breaker = Breaker("tiny", 0, lambda resting: None, clock)

    assert [tries(breaker, broken()) for _ in range(100)] == ["failed"] * 100


def test_one_event_that_fails_many_requests_counts_once(breaker: Breaker):
    lost = broken()

    assert [tries(breaker, lost) for _ in range(9)] == ["failed"] * 9
    assert tries(breaker) == "made"


def test_what_ran_before_the_rest_says_nothing_about_the_probe(breaker: Breaker, clock: Clock):
    early = breaker.attempt(), breaker.attempt()
    for _ in range(3):
        tries(breaker, broken())
    clock.now += 1.01
    probe = breaker.attempt()
    for attempt, error in zip(early, (broken(), BadRequest("no JSON")), strict=True):
        attempt.end(error)
    assert tries(breaker) == "refused", "the probe still runs"
    probe.end(None)
    assert tries(breaker) == "made"
