"""Every variable that begins with BRIGANTINE_, in whatever file, comments included, is a setting of the service."""

from __future__ import annotations

import re

from .product import setting_names
from .report import Report, one_of

__all__ = ["check"]

_SUFFIXES = {".cfg", ".yaml", ".yml"}


def check(report: Report) -> None:
    for file in sorted(report.folder.rglob("*")):
        if file.suffix not in _SUFFIXES:
            continue
        for number, line in enumerate(report.text(file).splitlines(), 1):
            for name in re.findall(r"\bBRIGANTINE_[A-Z0-9_]+\b", line):
                if name not in setting_names():
                    expected = one_of(setting_names(), name, "a setting of the service")
                    report.fault(file, f"line {number}", expected, name)
