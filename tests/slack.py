"""By how much a limit in seconds is stretched, on a machine that does other things besides."""

import os

__all__ = ["SLACK"]

SLACK = float(os.environ.get("SLACK", "1"))
