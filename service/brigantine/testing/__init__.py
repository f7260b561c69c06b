"""The conformance kit, for authors of plugins.

    from brigantine.testing import conformance

    test_chime = conformance(Chime, "models/chime")  # one test for each rule

`examine` returns the findings, `assert_plugin` raises them, and `tiny_onnx` makes a model to test with. pytest also has
the fixture `generate`, which makes requests through the real engine.
"""

from ..model import TensorSpec
from .conformance import conformance
from .examination import RULES, assert_plugin, examine
from .finding import Finding
from .models import model_folder, tiny_image, tiny_onnx

__all__ = [
    "Finding",
    "RULES",
    "TensorSpec",
    "assert_plugin",
    "conformance",
    "examine",
    "model_folder",
    "tiny_image",
    "tiny_onnx",
]
