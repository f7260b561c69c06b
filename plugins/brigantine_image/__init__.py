"""Images from any generator whose graph takes a latent (and a class) and returns uint8 pixels."""

from .params import ImageParams
from .plugin import ImagePlugin

__all__ = ["ImageParams", "ImagePlugin"]
