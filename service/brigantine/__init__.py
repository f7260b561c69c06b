"""Everything that the author of a plugin needs."""

from .decoder import Decoder
from .errors import BadParams, FieldError
from .media import Media, animation, gif, image, jpeg, png, text, wav, webp
from .model import Arrays, Label, Manifest, Model
from .plugin import Done, Params, Part, Plugin
from .session import Session
from .slots import Place

__all__ = [
    "Arrays",
    "BadParams",
    "Decoder",
    "Done",
    "FieldError",
    "Label",
    "Manifest",
    "Media",
    "Model",
    "Params",
    "Part",
    "Place",
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
