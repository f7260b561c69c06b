"""haproxy.cfg: by HAProxy itself where it is installed, and against what the service has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from .product import codes, has_path, settings_of
from .report import Report, one_of

__all__ = ["check", "seconds"]

_UNITS = {"": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_OWN = "/metrics"
"""HAProxy's exporter has a path of its own, which is Prometheus' default."""


def check(report: Report) -> None:
    file = report.folder / "haproxy.cfg"
    _by_haproxy(report, file)
    text = report.text(file)
    for number, line in enumerate(text.splitlines(), 1):
        where, code = f"line {number}", line.partition(" # ")[0].strip()
        for path in re.findall(r"(?:\buri|\bpath) (/\S*)", code):
            if path != _OWN and not has_path(path):
                report.fault(file, where, "a path of the service", path)
        for body in re.findall(r"string '([^']*)'", code):
            _check_error(report, file, where, body)
        if found := re.match(r"(?:timeout server|hard-stop-after) (\S+)$", code):
            _check_patience(report, file, where, found[1])
        if code.startswith("retry-on") and not re.search(r"^\s*option http-buffer-request\b", text, re.M):
            expected = "option http-buffer-request, without which nothing with a body is tried again"
            report.fault(file, where, expected, code)
        if code.startswith("default-server"):
            _check_notice(report, file, where, code)


def _by_haproxy(report: Report, file: Path) -> None:
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if haproxy is None:
        report.note(f"{report.name(file)} by HAProxy, which is not installed (Debian: haproxy)")
        return
    ran = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        report.fault(file, "haproxy -c", "a valid configuration", ran.stderr.strip())


def _check_error(report: Report, file: Path, where: str, text: str) -> None:
    """An answer of HAProxy's own looks like one of the service."""
    try:
        code = json.loads(text)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        report.fault(file, where, "OpenAI's error object", text)
        return
    if code not in codes():
        report.fault(file, where, one_of(codes(), code, "a code of the service"), code)


def _check_patience(report: Report, file: Path, where: str, text: str) -> None:
    longest = settings_of({}).timeout_s
    if (got := seconds(text)) is None or got <= longest:
        report.fault(file, where, f"more than BRIGANTINE_TIMEOUT_S ({longest:g} s)", text)


def _check_notice(report: Report, file: Path, where: str, code: str) -> None:
    """HAProxy hears that a replica stops before its door is closed."""
    first, more = (_duration(code, name) for name in ("inter", "fastinter"))
    falls = re.search(r"\bfall (\d+)", code)
    needed = first + more * (int(falls[1]) - 1 if falls else 2)
    notice = settings_of({}).lame_duck_seconds
    if needed >= notice:
        expected = f"checks that fail within BRIGANTINE_LAME_DUCK_SECONDS ({notice:g} s)"
        report.fault(file, where, expected, f"{needed:g} s")


def _duration(code: str, name: str) -> float:
    found = re.search(rf"\b{name} (\S+)", code)
    return (seconds(found[1]) if found else None) or 2.0  # HAProxy's default


def seconds(text: str) -> float | None:
    """A duration of HAProxy's or Compose's with one unit: 250ms, 35s. None for anything else."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h|)", text)
    return float(found[1]) * _UNITS[found[2]] if found else None
