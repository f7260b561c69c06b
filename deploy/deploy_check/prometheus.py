"""prometheus/: the configuration, and the rules for alerts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from .product import has_path, metrics, port
from .queries import check_query
from .report import Report

__all__ = ["check"]


def check(report: Report) -> None:
    folder = report.folder / "prometheus"
    config, rules = folder / "prometheus.yml", folder / "rules.yml"
    _by_promtool(report, config)
    for document in report.documents(config):
        _check_config(report, config, document)
    for document in report.documents(rules):
        _check_rules(report, rules, document)


def _by_promtool(report: Report, config: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        report.note(
            f"{report.name(config)} by promtool, which is not installed (Debian: prometheus); PromQL was parsed"
        )
        return
    command = [promtool, "check", "config", str(config)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        report.fault(
            config, "promtool check config", "a valid configuration", (ran.stderr or ran.stdout).strip()
        )


def _check_config(report: Report, file: Path, config: dict[str, Any]) -> None:
    for name in config.get("rule_files", []):
        if not (file.parent / name).is_file():
            report.fault(file, "rule_files", "a file beside it", name)
    for job in config.get("scrape_configs", []):
        name, path = job.get("job_name"), job.get("metrics_path", "/metrics")
        if name != "brigantine":
            continue
        if not has_path(path):
            report.fault(file, f"{name}.metrics_path", "a path of the service", path)
        for static in job.get("static_configs", []):
            for target in static.get("targets", []):
                if target.partition(":")[2] != str(port()):
                    report.fault(file, f"{name}.targets", f"the service's port {port()}", target)


def _check_rules(report: Report, file: Path, rules: dict[str, Any]) -> None:
    names: set[str] = set()
    for rule in (rule for group in rules.get("groups", []) for rule in group.get("rules", [])):
        name = rule.get("alert") or rule.get("record") or "a rule without a name"
        if name in names:
            report.fault(file, name, "a name that is there once", name)
        names.add(name)
        if name in metrics():
            report.fault(file, name, "a name of its own", "that of a metric")
        check_query(report, file, name, str(rule.get("expr", "")))
