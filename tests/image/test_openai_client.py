"""tests/e2e/test_openai_client.py, asked of the container."""

from tests.e2e.test_openai_client import *  # noqa: F403
