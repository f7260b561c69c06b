"""Is everything in this folder valid, and does it fit the product? `make deploy-check`

    python deploy/check.py [FOLDER]

Each fault is one line that names the file, the key, what was expected and what is there; the exit code is then 1. What
could not be checked, for want of a program on this machine, is said as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy_check import compose, haproxy, kubernetes, prometheus, settings
from deploy_check.report import Report

__all__ = ["check", "main"]

HERE = Path(__file__).parent


def check(folder: Path = HERE) -> Report:
    """What is wrong in a folder that is laid out as this one is."""
    report = Report(folder)
    settings.check(report)
    kubernetes.check(report)
    prometheus.check(report)
    compose.check(report)
    haproxy.check(report)
    return report


def main() -> int:
    report = check(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
    for note in report.notes:
        print(f"not checked: {note}")
    for fault in report.faults:
        print(fault, file=sys.stderr)
    print(f"{len(report.files)} files, {len(report.faults)} faults")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
