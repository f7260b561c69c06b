"""Images from any generator whose graph takes a latent (and a class) and returns uint8 pixels."""

from .plugin import ImageParams, ImagePlugin

__all__ = ["ImageParams", "ImagePlugin"]
