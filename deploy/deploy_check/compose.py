"""docker-compose.yml: by compose-spec's reader, and against what the service has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import compose_spec

from .haproxy import seconds
from .pods import END_S
from .product import images, port, settings_of, wrong_settings
from .report import Report

__all__ = ["check"]

_OURS = "brigantine-"
_OTHERS = ("docker.io/library/haproxy:", "docker.io/prom/prometheus:")


def check(report: Report) -> None:
    file = report.folder / "docker-compose.yml"
    documents = report.documents(file)
    if not documents:
        return
    try:
        compose_spec.PyCompose.from_yaml(file.read_text())
    except ValueError as error:
        report.fault(file, "file", "what the Compose specification allows", str(error))
        return
    services: dict[str, dict[str, Any]] = documents[0]["services"]
    replicas = [name for name in services if name.startswith(_OURS)]
    if len(replicas) < 2:
        report.fault(file, "services", f"two replicas, {_OURS}1 and {_OURS}2", replicas)
    for name, service in services.items():
        _check_image(report, file, f"services.{name}.image", str(service.get("image")), name in replicas)
        _check_files(report, file, name, service)
        if name in replicas:
            _check_replica(report, file, name, service)
        for variable, address in service.get("environment", {}).items():
            if variable.startswith("REPLICA_"):
                _check_address(report, file, f"services.{name}.environment.{variable}", address, replicas)
    _check_targets(report, file, services)


def _check_targets(report: Report, file: Path, services: Mapping[str, Any]) -> None:
    """What Prometheus asks is one of the services."""
    config = report.folder / "prometheus" / "prometheus.yml"
    for document in report.documents(config):
        for job in document.get("scrape_configs", []):
            targets = [target for static in job.get("static_configs", []) for target in static["targets"]]
            for target in targets:
                if target.partition(":")[0] not in services:
                    report.fault(
                        config, f"{job['job_name']}.targets", f"a service of {report.name(file)}", target
                    )


def _check_image(report: Report, file: Path, where: str, image: str, ours: bool) -> None:
    if ours and image not in images():
        report.fault(file, where, f"an image that make builds ({', '.join(sorted(images()))})", image)
    if not ours and not image.startswith(_OTHERS):
        report.fault(file, where, f"one of {', '.join(_OTHERS)} with a tag", image)


def _check_files(report: Report, file: Path, name: str, service: dict[str, Any]) -> None:
    """What a container reads of this folder is in it."""
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        if source.startswith("./") and source != "./models" and not (report.folder / source).exists():
            report.fault(file, f"services.{name}.volumes", "a file or folder beside it", source)


def _check_replica(report: Report, file: Path, name: str, service: dict[str, Any]) -> None:
    variables = {key: str(text) for key, text in service.get("environment", {}).items()}
    if fault := wrong_settings(variables):
        report.fault(
            file, f"services.{name}.environment", "settings that the service would start with", fault
        )
    needed = settings_of(variables).drain_seconds + END_S
    grace = service.get("stop_grace_period", "10s")
    if (seconds(grace) or 0) < needed:
        expected = f"at least {needed:g}s: BRIGANTINE_DRAIN_SECONDS and {END_S:g} s to end"
        report.fault(file, f"services.{name}.stop_grace_period", expected, grace)
    for key, expected in (("read_only", True), ("cap_drop", ["ALL"])):
        if service.get(key) != expected:
            report.fault(file, f"services.{name}.{key}", repr(expected), service.get(key))


def _check_address(report: Report, file: Path, where: str, address: str, replicas: list[str]) -> None:
    host, _, number = address.partition(":")
    if host not in replicas:
        report.fault(file, where, f"one of {', '.join(replicas)}", host)
    if number != str(port()):
        report.fault(file, where, f"the service's port, {port()}", number)
