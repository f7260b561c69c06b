"""A plugin that misbehaves in a process of its own, by its label."""

from __future__ import annotations

import os
import time
from typing import Any

from brigantine import Arrays, Media
from brigantine_image import ImagePlugin

DEADLY, UNSENDABLE, LARGE, ENDLESS = 2, 1, "large", "endless"
LARGE_BYTES = 5_000_000


class Odd(ImagePlugin):
    """Label 2 ends the process, 1 makes what cannot be pickled, `large` makes much, and `endless` does not end."""

    def prepare(self, params: Any, rng: Any) -> Arrays:
        if params.label == DEADLY:
            os._exit(3)
        if params.label == ENDLESS:
            time.sleep(60)
        return super().prepare(
            params.model_copy(update={"label": 0 if params.label == LARGE else params.label}), rng
        )

    def render(self, row: Arrays, params: Any, media_type: str) -> Media:
        if params.label == UNSENDABLE:
            return Media(media_type, b"", {"why": lambda: None})
        if params.label == LARGE:
            return Media(media_type, bytes(LARGE_BYTES))
        return super().render(row, params, media_type)
