"""What the nest imports, of which workers are forked: a process with more than one thread cannot be."""

import os
import subprocess
import sys

CODE = """
import os
import brigantine.inference
from onnx import defs

assert defs.has("Relu")
print(len(os.listdir("/proc/self/task")))
"""


def test_it_starts_no_thread():
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy would start one for each core
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=True, timeout=60)

    assert int(done.stdout) == 1
