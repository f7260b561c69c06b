"""Projects of plugins, installed where one server sees them, and not into the environment of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHIME = Path(__file__).parent.parent / "examples" / "brigantine-chime"


def install(project: Path, site: Path) -> Path:
    """`pip install` into the folder `site`, which is returned: put it on PYTHONPATH. Dependencies are not looked at."""
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    installed = subprocess.run(
        [*pip, "--no-deps", "--target", str(site), str(project)], capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    return site
