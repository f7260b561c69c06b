"""Held: what lies on a GPU, let go of in its turn."""

from __future__ import annotations

from typing import Any

from .turns import GPU, Turns

__all__ = ["Held"]


class Held:
    """Stands for a session, a binding or a value of ONNX Runtime, which nothing else keeps, and is used as that.

    To destroy one beside a recording ends the process. Whoever drops this one last, the garbage collector within a
    recording, too, leaves it to the turns.
    """

    __slots__ = ("_thing",)

    def __init__(self, thing: Any) -> None:
        self._thing = [thing]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._thing[0], name)

    def __del__(self, turns: Turns = GPU) -> None:  # a global may be gone when the process ends
        turns.discard(self._thing)
