"""Everything that the author of a plugin needs."""

from .errors import BadParams, FieldError
from .media import Media, image, jpeg, png, text, webp
from .model import Arrays, Label, Manifest, Model
from .plugin import Done, Params, Plugin
from .session import Session

__all__ = [
    "Arrays",
    "BadParams",
    "Done",
    "FieldError",
    "Label",
    "Manifest",
    "Media",
    "Model",
    "Params",
    "Plugin",
    "Session",
    "image",
    "jpeg",
    "png",
    "text",
    "webp",
]
