"""Budgets, the schedules along them, and durations in words."""

import pytest
from brigantine_training.errors import ConfigError
from brigantine_training.schedule import Budget, cosine, format_seconds, parse_seconds, rates_at

from tests.training.digits import tiny_config


@pytest.mark.parametrize(
    ("budget", "progress"),
    [
        (Budget(seconds=100, steps=None), 0.25),
        (Budget(seconds=None, steps=50), 0.2),
        (Budget(seconds=100, steps=50), 0.25),
        (Budget(seconds=100, steps=20), 0.5),
        (Budget(seconds=10, steps=None), 1.0),
    ],
)
def test_the_budget_that_is_further_spent_decides(budget: Budget, progress: float):
    assert budget.progress(seconds=25, steps=10) == progress


def test_a_cosine_goes_from_start_to_end():
    assert [cosine(3.0, 1.0, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([3.0, 2.0, 1.0])


def test_the_learning_rate_never_ends():
    config = tiny_config(learning_rate=1e-3, learning_rate_final=0.1, gamma_start=0.1, gamma_end=0.05)
    start, end = rates_at(config, 0.0), rates_at(config, 1.0)
    assert (start.learning_rate, end.learning_rate) == pytest.approx((1e-3, 1e-4))
    assert (start.gamma, end.gamma) == pytest.approx((0.1, 0.05))
    assert (start.beta2, end.beta2) == pytest.approx((0.9, 0.99))


def test_a_larger_budget_plans_the_schedule_anew():
    spent = rates_at(tiny_config(), Budget(None, 20).progress(0, 20))
    resumed = rates_at(tiny_config(), Budget(None, 40).progress(0, 20))
    assert resumed.learning_rate > 5 * spent.learning_rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("1m30s", 90)],
)
def test_durations_are_read(text: str, seconds: float):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10 minutes", "m", "-5m", "1..5h"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ConfigError, match="expected a duration such as 90s, 10m or 1h30m"):
        parse_seconds(text)


@pytest.mark.parametrize(("seconds", "text"), [(9.2, "9s"), (69, "1m 09s"), (3849, "1h 04m 09s")])
def test_durations_are_written(seconds: float, text: str):
    assert format_seconds(seconds) == text
