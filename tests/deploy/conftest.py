"""deploy/ is no package: its check is run as a script, and found here as that finds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "deploy"))
