"""The guard: torchvision imports beside any torch, and is left alone where it imports by itself."""

import subprocess
import sys

from brigantine_training.torchvision_guard import datasets, transforms, utils


def test_the_parts_that_training_uses_are_there():
    assert datasets.MNIST.classes[7] == "7 - seven"
    assert callable(utils.make_grid)
    assert callable(transforms.Normalize)


SCRIPT = """
try:
    import torchvision
except RuntimeError:
    plain = False
else:
    plain = True
from brigantine_training import torchvision_guard
print(plain, torchvision_guard.DECLARED is None)
"""


def test_operators_are_declared_only_where_the_plain_import_fails():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    plain, left_alone = done.stdout.split()
    assert left_alone == plain
