"""Everything that the author of a plugin needs."""

from .errors import BadParams, FieldError
from .media import Media, animation, gif, image, jpeg, png, text, wav, webp
from .model import Arrays, Label, Manifest, Model
from .plugin import Done, Params, Part, Plugin
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
    "Part",
    "Plugin",
    "Session",
    "animation",
    "gif",
    "image",
    "jpeg",
    "png",
    "text",
    "wav",
    "webp",
]
