"""The one door to torchvision: the parts that training uses, importable beside any build of torch.

The wheel of torchvision on PyPI is built against CUDA. Beside a CPU build of torch its native library does not
load, and `import torchvision` stops with "operator torchvision::nms does not exist" (pytorch/vision #8985). The
Python half works once the two missing operators are declared, so they are, and only then.
"""

import importlib
import sys

import torch

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare_missing_operators() -> torch.library.Library:
    """Declare `nms` and `qnms` without a body: nothing here calls them, torchvision only looks them up."""
    library = torch.library.Library("torchvision", "DEF")
    library.define(f"nms{_NMS}")
    library.define(f"qnms{_NMS}")
    return library


def import_torchvision() -> torch.library.Library | None:
    """Import torchvision; gives the declared operators where they were needed, None where the import just worked.

    Raises:
        RuntimeError: torchvision fails for another reason than the missing operators.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = _declare_missing_operators()
        importlib.import_module("torchvision")
        return library
    return None


# A Library takes its operators away when it is collected, so the module holds it.
DECLARED = import_torchvision()

from torchvision import datasets, utils  # noqa: E402
from torchvision.transforms import v2 as transforms  # noqa: E402

__all__ = ["DECLARED", "datasets", "import_torchvision", "transforms", "utils"]
