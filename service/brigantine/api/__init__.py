"""HTTP: the only rooms that know starlette."""

from .access import ACCESS, AccessLog
from .entry import Entry, Host

__all__ = ["ACCESS", "AccessLog", "Entry", "Host"]
