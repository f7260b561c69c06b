"""Makes onnx's schemas of operators, 7 MB, when it is imported: the nest does that, so that workers share them."""

from onnx import defs

__all__: list[str] = []

defs.has("ConvTranspose")
