"""A pod: its image, settings, probes and end are those of the service, and it keeps to the strictest profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .product import has_path, images, port, settings_of, user, wrong_settings

__all__ = ["END_S", "Wrong", "wrong"]

END_S = 5.0
"""What a service needs to end beside BRIGANTINE_DRAIN_SECONDS."""
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_GPU = "nvidia.com/gpu"

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a root that cannot be written
_RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class Wrong(NamedTuple):
    where: str
    expected: str
    got: object


def wrong(
    pod: Mapping[str, Any], settings: Mapping[str, Mapping[str, str]], services: list[str]
) -> Iterator[Wrong]:
    """What is wrong with a pod.

    Args:
        pod: its spec.
        settings: the data of each ConfigMap.
        services: the names of the Services beside it.
    """
    yield from _differs("securityContext", pod.get("securityContext", {}), _RESTRICTED_POD)
    runs_as = pod.get("securityContext", {}).get("runAsUser")
    if runs_as != user():
        yield Wrong("securityContext.runAsUser", f"the image's user, {user()}", runs_as)
    if pod.get("enableServiceLinks", True) and any(name.startswith("brigantine") for name in services):
        reason = "false: a Service's variables begin with BRIGANTINE_, and the service refuses unknown ones"
        yield Wrong("enableServiceLinks", reason, True)
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for index, container in enumerate(pod["containers"]):
        at = f"containers.{index}"
        variables, missing = _variables(container, settings)
        if missing:
            yield Wrong(f"{at}.envFrom", f"a ConfigMap of {', '.join(settings) or 'none'}", missing)
        yield from _container(at, container, variables, volumes)
        yield from _ends(at, container, variables, pod.get("terminationGracePeriodSeconds", 30))


def _container(
    at: str, container: Mapping[str, Any], variables: Mapping[str, str], volumes: set[str]
) -> Iterator[Wrong]:
    yield from _differs(f"{at}.securityContext", container.get("securityContext", {}), _RESTRICTED)
    image = container["image"] if ":" in container["image"] else f"{container['image']}:latest"
    if image not in images():
        yield Wrong(f"{at}.image", f"an image that make builds ({', '.join(sorted(images()))})", image)
    if fault := wrong_settings(variables):
        yield Wrong(f"{at}.envFrom", "settings that the service would start with", fault)
    ports = {entry.get("name"): entry["containerPort"] for entry in container.get("ports", [])}
    if port() not in ports.values():
        yield Wrong(f"{at}.ports", f"the service's port, {port()}", list(ports.values()))
    yield from _probes(at, container, ports)
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield Wrong(f"{at}.volumeMounts", f"a volume of {', '.join(volumes) or 'none'}", mount["name"])
    gpus = container.get("resources", {}).get("limits", {}).get(_GPU)
    if settings_of(variables).require_gpu and not gpus:
        yield Wrong(f"{at}.resources.limits.{_GPU}", "one, since BRIGANTINE_REQUIRE_GPU is set", gpus)


def _probes(at: str, container: Mapping[str, Any], ports: Mapping[str | None, int]) -> Iterator[Wrong]:
    for name in _PROBES:
        asked = container.get(name, {}).get("httpGet")
        if asked is None:
            yield Wrong(f"{at}.{name}", "an httpGet", container.get(name))
            continue
        if not has_path(asked["path"]):
            yield Wrong(f"{at}.{name}.httpGet.path", "a path of the service", asked["path"])
        if asked["port"] not in [*ports, *ports.values()]:
            yield Wrong(f"{at}.{name}.httpGet.port", "a port of the container", asked["port"])


def _ends(
    at: str, container: Mapping[str, Any], variables: Mapping[str, str], grace: float
) -> Iterator[Wrong]:
    """All of a pod's end fits into the time that Kubernetes gives it."""
    hook = container.get("lifecycle", {}).get("preStop", {})
    sleep = float(hook.get("sleep", {}).get("seconds", 0))
    drain = settings_of(variables).drain_seconds
    if grace < (needed := sleep + drain + END_S):
        expected = (
            f"at least {needed:g}: {sleep:g} s of preStop, {drain:g} s of BRIGANTINE_DRAIN_SECONDS "
            f"and {END_S:g} s to end ({at})"
        )
        yield Wrong("terminationGracePeriodSeconds", expected, grace)


def _variables(
    container: Mapping[str, Any], settings: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, str], str]:
    """The container's environment, and the name of a ConfigMap that is not there."""
    variables: dict[str, str] = {}
    missing = ""
    for source in container.get("envFrom", []):
        name = source.get("configMapRef", {}).get("name", "")
        missing = missing or ("" if name in settings else name)
        variables |= settings.get(name, {})
    given = {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}
    return variables | given, missing


def _differs(at: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Wrong]:
    for name, value in expected.items():
        if got.get(name) != value:
            yield Wrong(f"{at}.{name}", repr(value), got.get(name))
