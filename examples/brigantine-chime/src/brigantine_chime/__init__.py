"""The plugin `chime` for Brigantine."""

from .plugin import ChimeParams, ChimePlugin

__all__ = ["ChimeParams", "ChimePlugin"]
