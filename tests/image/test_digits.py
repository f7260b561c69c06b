"""tests/e2e/test_digits.py, asked of the container."""

from tests.e2e.test_digits import *  # noqa: F403
