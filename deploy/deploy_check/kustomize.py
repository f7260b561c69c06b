"""What `kubectl kustomize` makes of a folder, for what is used here: resources, patches by file, images, a namespace.

schemas/kustomization.json refuses everything else. A test holds the outcome against kubectl's own, where there is one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .report import Report
from .schemas import wrong

__all__ = ["Resource", "render"]

_MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
"""Lists whose items a patch adds to or changes; any other list it replaces.
https://kubernetes.io/docs/reference/generated/kubernetes-api/ names the key of each as its patch merge key."""
_CLUSTER_WIDE = {"Namespace"}


@dataclass
class Resource:
    """One document, the file that it is from, and the one that has changed it last."""

    document: dict[str, Any]
    file: Path
    patch: Path | None = None

    @property
    def kind(self) -> str:
        return str(self.document.get("kind"))

    @property
    def name(self) -> str:
        metadata = self.document.get("metadata")
        return str(metadata.get("name")) if isinstance(metadata, dict) else "without a name"


def render(report: Report, folder: Path) -> list[Resource]:
    """The resources of a folder with a kustomization.yaml."""
    file = folder / "kustomization.yaml"
    documents = report.documents(file)
    if not documents:
        return []
    kustomization = documents[0]
    if (fault := wrong(kustomization)) is not None:
        report.fault(file, fault[0], "what deploy/schemas/kustomization.json allows", fault[1])
        return []
    found: list[Resource] = []
    for name in kustomization["resources"]:
        found += _resources(report, file, (folder / name).resolve())
    for patch in kustomization.get("patches", []):
        _patch(report, found, folder / patch["path"])
    for image in kustomization.get("images", []):
        _rename(found, image)
    for resource in found:
        if "namespace" in kustomization and resource.kind not in _CLUSTER_WIDE:
            resource.document["metadata"]["namespace"] = kustomization["namespace"]
    return found


def _resources(report: Report, file: Path, path: Path) -> list[Resource]:
    if path.is_dir():
        return render(report, path)
    if not path.is_file():
        report.fault(file, "resources", "a file or a folder", path.name)
        return []
    return [Resource(document, path) for document in report.documents(path)]


def _patch(report: Report, resources: list[Resource], file: Path) -> None:
    for patch in report.documents(file):
        kind, name = patch.get("kind"), patch.get("metadata", {}).get("name")
        target = next((each for each in resources if (each.kind, each.name) == (kind, name)), None)
        if target is None:
            report.fault(file, f"{kind}/{name}", "the kind and name of a resource", f"{kind}/{name}")
            continue
        target.document = merged(target.document, patch)
        target.patch = file


def merged(base: Any, patch: Any, key: str = "") -> Any:
    """`base` with what a strategic merge patch says: maps are joined, null takes away, lists by `_MERGED_BY`."""
    if isinstance(base, dict) and isinstance(patch, dict):
        joined = {name: below for name, below in base.items() if patch.get(name, ...) is not None}
        for name, below in patch.items():
            if below is not None:
                joined[name] = merged(base.get(name), below, name)
        return joined
    if isinstance(base, list) and isinstance(patch, list) and key in _MERGED_BY:
        by = _MERGED_BY[key]
        items = {item[by]: item for item in base}
        for item in patch:
            items[item[by]] = merged(items.get(item[by]), item)
        return list(items.values())
    return copy.deepcopy(patch)


def _rename(resources: list[Resource], image: dict[str, str]) -> None:
    for resource in resources:
        pod = resource.document.get("spec", {}).get("template", {}).get("spec", {})
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag or 'latest')}"
