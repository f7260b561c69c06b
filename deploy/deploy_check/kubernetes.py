"""k8s/: every resource is valid, and what refers to something refers to something that is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import pods
from .kustomize import Resource, render
from .product import has_path, metrics
from .queries import check_query
from .report import Report, one_of
from .schemas import wrong

__all__ = ["check"]

_TARGETS = ("base", "cpu", "gpu")


def check(report: Report) -> None:
    adapted = _adapter(report, report.folder / "k8s" / "prometheus-adapter.yaml")
    for name in _TARGETS:
        _Cluster(report, render(report, report.folder / "k8s" / name), adapted).check()


def _adapter(report: Report, file: Path) -> set[str]:
    """The metrics of pods that prometheus-adapter's rules bring to the cluster."""
    found: set[str] = set()
    for document in report.documents(file):
        for rule in document.get("rules", {}).get("custom", []):
            series, query = str(rule.get("seriesQuery")), str(rule.get("metricsQuery"))
            check_query(report, file, "seriesQuery", series)
            name = series.partition("{")[0]
            filled = {"<<.Series>>": name, "<<.LabelMatchers>>": 'pod="a"', "<<.GroupBy>>": "pod"}
            for blank, text in filled.items():
                query = query.replace(blank, text)
            check_query(report, file, "metricsQuery", query)
            found.add(rule.get("name", {}).get("as", name))
    return found


class _Cluster:
    """The resources of one folder, as a cluster would have them."""

    def __init__(self, report: Report, resources: list[Resource], adapted: set[str]) -> None:
        self._report = report
        self._resources = resources
        self._adapted = adapted

    def check(self) -> None:
        valid: list[Resource] = []
        for resource in self._resources:
            if (fault := wrong(resource.document)) is None:
                valid.append(resource)
            else:
                self._fault(resource, fault[0], f"a valid {resource.kind}", fault[1])
        self._resources = valid  # of the others nothing can be said
        for resource in valid:
            spec = resource.document.get("spec", {})
            match resource.kind:
                case "Deployment":
                    self._deployment(resource, spec)
                case "Service":
                    self._service(resource, spec)
                case "HorizontalPodAutoscaler":
                    self._autoscaler(resource, spec)
                case "PodDisruptionBudget":
                    self._selects_pods(resource, "spec.selector.matchLabels", spec["selector"]["matchLabels"])
                case "NetworkPolicy":
                    self._selects_pods(
                        resource, "spec.podSelector.matchLabels", spec["podSelector"].get("matchLabels", {})
                    )
                    self._ports(resource, spec)
                case "ServiceMonitor":
                    self._monitor(resource, spec)
                case _:
                    pass

    def _deployment(self, resource: Resource, spec: Mapping[str, Any]) -> None:
        labels, selector = spec["template"]["metadata"]["labels"], spec["selector"]["matchLabels"]
        if not _within(selector, labels):
            self._fault(resource, "spec.selector.matchLabels", f"some of the labels {labels}", selector)
        settings = {each.name: each.document.get("data", {}) for each in self._of("ConfigMap")}
        services = [each.name for each in self._of("Service")]
        for where, expected, got in pods.wrong(spec["template"]["spec"], settings, services):
            self._fault(resource, f"spec.template.spec.{where}", expected, got)

    def _service(self, resource: Resource, spec: Mapping[str, Any]) -> None:
        self._selects_pods(resource, "spec.selector", spec.get("selector", {}))
        self._target_ports(resource, [port.get("targetPort", port["port"]) for port in spec["ports"]])

    def _ports(self, resource: Resource, spec: Mapping[str, Any]) -> None:
        for rule in spec.get("ingress", []):
            self._target_ports(resource, [port["port"] for port in rule.get("ports", []) if "port" in port])

    def _target_ports(self, resource: Resource, ports: Iterable[int | str]) -> None:
        known = {
            port[key]
            for pod in self._templates()
            for container in pod["spec"]["containers"]
            for port in container.get("ports", [])
            for key in ("name", "containerPort")
            if key in port
        }
        for port in ports:
            if port not in known:
                expected = f"a port of the container ({', '.join(sorted(map(str, known)))})"
                self._fault(resource, "spec.ports", expected, port)

    def _autoscaler(self, resource: Resource, spec: Mapping[str, Any]) -> None:
        target = spec["scaleTargetRef"]
        if target["name"] not in [each.name for each in self._of(target["kind"])]:
            self._fault(
                resource, "spec.scaleTargetRef.name", f"the name of a {target['kind']}", target["name"]
            )
        if (least := spec.get("minReplicas", 1)) > (most := spec["maxReplicas"]):
            self._fault(resource, "spec.minReplicas", f"at most maxReplicas, {most}", least)
        for index, metric in enumerate(spec.get("metrics", [])):
            if metric["type"] != "Pods":
                continue
            name, where = metric["pods"]["metric"]["name"], f"spec.metrics.{index}.pods.metric.name"
            if name not in metrics():
                self._fault(resource, where, one_of(metrics(), name, "a metric of the product"), name)
            elif name not in self._adapted:
                self._fault(resource, where, "one that prometheus-adapter.yaml has a rule for", name)

    def _monitor(self, resource: Resource, spec: Mapping[str, Any]) -> None:
        selector = spec["selector"]["matchLabels"]
        services = [
            each
            for each in self._of("Service")
            if _within(selector, each.document["metadata"].get("labels", {}))
        ]
        if not services:
            self._fault(resource, "spec.selector.matchLabels", "the labels of a Service", selector)
        names = {port.get("name") for each in services for port in each.document["spec"]["ports"]}
        for index, endpoint in enumerate(spec["endpoints"]):
            where = f"spec.endpoints.{index}"
            if services and endpoint["port"] not in names:
                self._fault(resource, f"{where}.port", "the name of a port of the Service", endpoint["port"])
            if not has_path(endpoint["path"]):
                self._fault(resource, f"{where}.path", "a path of the service", endpoint["path"])

    def _selects_pods(self, resource: Resource, where: str, selector: Mapping[str, str]) -> None:
        labels = [pod["metadata"]["labels"] for pod in self._templates()]
        if labels and not any(_within(selector, each) for each in labels):
            self._fault(resource, where, "labels of the Deployment's pods", dict(selector))

    def _templates(self) -> list[dict[str, Any]]:
        return [each.document["spec"]["template"] for each in self._of("Deployment")]

    def _of(self, kind: str) -> list[Resource]:
        return [each for each in self._resources if each.kind == kind]

    def _fault(self, resource: Resource, where: str, expected: str, got: object) -> None:
        """In the file of the resource, or in the patch when the resource was right without it."""
        where = f"{resource.kind}/{resource.name} {where}"
        base = (self._report.name(resource.file), where, expected, got)
        file = resource.patch if resource.patch and base not in self._report.faults else resource.file
        self._report.fault(file, where, expected, got)


def _within(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()
