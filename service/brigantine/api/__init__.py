"""HTTP: the only rooms that know starlette."""

from .entry import Entry, Host

__all__ = ["Entry", "Host"]
