"""Text from any causal language model whose graph keeps a cache."""

from .params import Message, TextParams
from .plugin import TextPlugin

__all__ = ["Message", "TextParams", "TextPlugin"]
