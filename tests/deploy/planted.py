"""Faults to plant in a copy of deploy/, and what the check must say of each."""

from pathlib import Path
from typing import NamedTuple

__all__ = ["FAULTS", "Planted", "plant"]


class Planted(NamedTuple):
    file: str
    old: str
    new: str
    says: tuple[str, ...]
    """All of them, in one line."""


BASE = "k8s/base"

FAULTS = {
    "metric of the autoscaler": Planted(
        f"{BASE}/autoscaler.yaml",
        "name: brigantine_in_flight",
        "name: brigantine_inflight",
        ("autoscaler.yaml", "metrics.0.pods.metric.name", "brigantine_in_flight?", "'brigantine_inflight'"),
    ),
    "metric that the adapter does not bring": Planted(
        f"{BASE}/autoscaler.yaml",
        "name: brigantine_in_flight",
        "name: brigantine_queue_rows",
        ("autoscaler.yaml", "prometheus-adapter.yaml", "'brigantine_queue_rows'"),
    ),
    "metric of the autoscaler for GPUs": Planted(
        "k8s/gpu/gpu.yaml",
        "name: brigantine_in_flight",
        "name: brigantine_in_fligth",
        ("gpu.yaml", "metrics.0.pods.metric.name", "'brigantine_in_fligth'"),
    ),
    "metric of the adapter": Planted(
        "k8s/prometheus-adapter.yaml",
        "seriesQuery: brigantine_in_flight",
        "seriesQuery: brigantine_flights",
        ("prometheus-adapter.yaml", "seriesQuery", "'brigantine_flights'"),
    ),
    "metric of an alert": Planted(
        "prometheus/rules.yml",
        "brigantine_model_resting",
        "brigantine_models_resting",
        ("rules.yml", "BrigantineModelResting", "brigantine_model_resting?", "'brigantine_models_resting'"),
    ),
    "label of an alert": Planted(
        "prometheus/rules.yml",
        'status="429"',
        'code="429"',
        ("rules.yml", "BrigantineShedding", "status", "'code'"),
    ),
    "label that is grouped by": Planted(
        "prometheus/rules.yml",
        "min by (plugin)",
        "min by (model)",
        ("rules.yml", "BrigantinePluginDown", "plugin", "'model'"),
    ),
    "stage": Planted(
        "prometheus/rules.yml",
        'stage="queue"',
        'stage="wait"',
        ("BrigantineWaiting", "queue, prepare", "'wait'"),
    ),
    "PromQL": Planted(
        "prometheus/rules.yml",
        "max by (model) (brigantine_model_resting) > 0",
        "max by (model) (brigantine_model_resting > 0",
        ("rules.yml", "BrigantineModelResting", "PromQL", "unclosed left parenthesis"),
    ),
    "alert that is there twice": Planted(
        "prometheus/rules.yml",
        "alert: BrigantineDown",
        "alert: BrigantineFailing",
        ("rules.yml", "BrigantineFailing", "once"),
    ),
    "path that Prometheus asks": Planted(
        "prometheus/prometheus.yml",
        "metrics_path: /metrics",
        "metrics_path: /metric",
        ("prometheus.yml", "metrics_path", "'/metric'"),
    ),
    "port that Prometheus asks": Planted(
        "prometheus/prometheus.yml",
        "brigantine-2:3000",
        "brigantine-2:8000",
        ("prometheus.yml", "3000", "brigantine-2:8000"),
    ),
    "host that Prometheus asks": Planted(
        "prometheus/prometheus.yml",
        "brigantine-2:3000",
        "brigantine-3:3000",
        ("docker-compose.yml", "'brigantine-3:3000'"),
    ),
    "path of a probe": Planted(
        f"{BASE}/deployment.yaml",
        "path: /livez",
        "path: /healthz",
        ("deployment.yaml", "livenessProbe.httpGet.path", "'/healthz'"),
    ),
    "port of a probe": Planted(
        f"{BASE}/deployment.yaml",
        "{path: /livez, port: http}",
        "{path: /livez, port: web}",
        ("deployment.yaml", "livenessProbe.httpGet.port", "'web'"),
    ),
    "path of the ServiceMonitor": Planted(
        f"{BASE}/monitor.yaml",
        "path: /metrics",
        "path: /prometheus",
        ("monitor.yaml", "endpoints.0.path", "'/prometheus'"),
    ),
    "path of HAProxy's checks": Planted(
        "haproxy.cfg",
        "uri /readyz",
        "uri /ready",
        ("haproxy.cfg", "line ", "a path of the service", "'/ready'"),
    ),
    "code of an error of HAProxy's": Planted(
        "haproxy.cfg", '"code":"deadline_exceeded"', '"code":"timeout"', ("haproxy.cfg", "line ", "'timeout'")
    ),
    "patience of HAProxy's": Planted(
        "haproxy.cfg",
        "timeout server 35s",
        "timeout server 30s",
        ("haproxy.cfg", "BRIGANTINE_TIMEOUT_S", "'30s'"),
    ),
    "retries that cannot be": Planted(
        "haproxy.cfg",
        "    option http-buffer-request",
        "    # option http-buffer-request",
        ("haproxy.cfg", "line ", "option http-buffer-request", "'retry-on conn-failure empty-response 503'"),
    ),
    "checks that are too slow": Planted(
        "haproxy.cfg", "inter 500ms", "inter 5s", ("haproxy.cfg", "BRIGANTINE_LAME_DUCK_SECONDS", "'5.25 s'")
    ),
    "unknown setting": Planted(
        f"{BASE}/settings.yaml",
        "BRIGANTINE_WORKERS:",
        "BRIGANTINE_WORKER:",
        ("settings.yaml", "line ", "BRIGANTINE_WORKERS?", "'BRIGANTINE_WORKER'"),
    ),
    "unknown setting in a comment": Planted(
        "haproxy.cfg",
        "(BRIGANTINE_TIMEOUT_S)",
        "(BRIGANTINE_TIMEOUT)",
        ("haproxy.cfg", "line ", "'BRIGANTINE_TIMEOUT'"),
    ),
    "wrong value of a setting": Planted(
        f"{BASE}/settings.yaml", '"2"', '"two"', ("deployment.yaml", "BRIGANTINE_WORKERS", "got 'two'")
    ),
    "wrong value in the compose file": Planted(
        "docker-compose.yml",
        'WORKERS: "2"',
        'WORKERS: "-1"',
        ("docker-compose.yml", "brigantine-1", "BRIGANTINE_WORKERS"),
    ),
    "key of a Deployment": Planted(
        f"{BASE}/deployment.yaml",
        "readinessProbe:",
        "readinesProbe:",
        ("deployment.yaml", "spec.template.spec.containers.0", "'readinesProbe' was unexpected"),
    ),
    "key of a patch": Planted(
        "k8s/gpu/gpu.yaml",
        "tolerations:",
        "toleration:",
        ("gpu.yaml", "Deployment/brigantine", "'toleration' was unexpected"),
    ),
    "key of the ServiceMonitor": Planted(
        f"{BASE}/monitor.yaml",
        "interval: 15s",
        "intervall: 15s",
        ("monitor.yaml", "spec.endpoints.0", "'intervall' was unexpected"),
    ),
    "key of a kustomization": Planted(
        "k8s/gpu/kustomization.yaml",
        "patches:",
        "patchesStrategicMerge:",
        ("gpu/kustomization.yaml", "'patchesStrategicMerge' was unexpected"),
    ),
    "key of the compose file": Planted(
        "docker-compose.yml", "read_only:", "readonly:", ("docker-compose.yml", "readonly", "line ")
    ),
    "key that is there twice": Planted(
        f"{BASE}/service.yaml",
        "spec:\n",
        "spec:\n  selector: {}\n",
        ("service.yaml", "line ", "the key 'selector' twice"),
    ),
    "selector of the budget": Planted(
        f"{BASE}/disruption.yaml",
        "matchLabels: {app.kubernetes.io/name: brigantine}",
        "matchLabels: {app: brigantine}",
        ("disruption.yaml", "spec.selector.matchLabels", "{'app': 'brigantine'}"),
    ),
    "selector of the policy": Planted(
        f"{BASE}/network.yaml",
        "matchLabels: {app.kubernetes.io/name: brigantine}",
        "matchLabels: {app: brigantine}",
        ("network.yaml", "spec.podSelector.matchLabels", "{'app': 'brigantine'}"),
    ),
    "selector of the Service": Planted(
        f"{BASE}/service.yaml",
        "selector: {app.kubernetes.io/name: brigantine}",
        "selector: {app.kubernetes.io/name: brig}",
        ("service.yaml", "spec.selector", "brig'}"),
    ),
    "selector of the ServiceMonitor": Planted(
        f"{BASE}/monitor.yaml",
        "matchLabels: {app.kubernetes.io/name: brigantine}",
        "matchLabels: {app: brigantine}",
        ("monitor.yaml", "spec.selector.matchLabels", "{'app': 'brigantine'}"),
    ),
    "selector of the Deployment": Planted(
        f"{BASE}/deployment.yaml",
        "  selector:\n    matchLabels: {app.kubernetes.io/name: brigantine}",
        "  selector:\n    matchLabels: {app: brigantine}",
        ("deployment.yaml", "spec.selector.matchLabels", "{'app': 'brigantine'}"),
    ),
    "port of the Service": Planted(
        f"{BASE}/service.yaml", "targetPort: http", "targetPort: web", ("service.yaml", "spec.ports", "'web'")
    ),
    "port of the container": Planted(
        f"{BASE}/deployment.yaml",
        "containerPort: 3000",
        "containerPort: 8000",
        ("deployment.yaml", "3000", "[8000]"),
    ),
    "end that is too short": Planted(
        f"{BASE}/deployment.yaml",
        "sleep: {seconds: 5}",
        "sleep: {seconds: 30}",
        (
            "deployment.yaml",
            "terminationGracePeriodSeconds",
            "30 s of preStop",
            "BRIGANTINE_DRAIN_SECONDS",
            "got 45",
        ),
    ),
    "drain that is too long": Planted(
        f"{BASE}/settings.yaml",
        "\ndata:\n",
        '\ndata:\n  BRIGANTINE_DRAIN_SECONDS: "60"\n',
        ("terminationGracePeriodSeconds", "60 s of BRIGANTINE_DRAIN_SECONDS", "got 45"),
    ),
    "end of a container that is too short": Planted(
        "docker-compose.yml",
        "stop_grace_period: 40s # longer",
        "stop_grace_period: 10s # longer",
        ("docker-compose.yml", "brigantine-1.stop_grace_period", "BRIGANTINE_DRAIN_SECONDS", "'10s'"),
    ),
    "variables of a Service": Planted(
        f"{BASE}/deployment.yaml",
        "enableServiceLinks: false",
        "enableServiceLinks: true",
        ("enableServiceLinks", "got True"),
    ),
    "root that can be written": Planted(
        f"{BASE}/deployment.yaml",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        ("containers.0.securityContext.readOnlyRootFilesystem", "got False"),
    ),
    "somebody else's user": Planted(
        f"{BASE}/deployment.yaml",
        "runAsUser: 1034",
        "runAsUser: 1000",
        ("securityContext.runAsUser", "1034", "got 1000"),
    ),
    "volume that is not there": Planted(
        f"{BASE}/deployment.yaml", "- name: tmp #", "- name: temp #", ("volumeMounts", "'tmp'")
    ),
    "ConfigMap that is not there": Planted(
        f"{BASE}/deployment.yaml",
        "configMapRef: {name: brigantine}",
        "configMapRef: {name: settings}",
        ("envFrom", "a ConfigMap of brigantine", "'settings'"),
    ),
    "image that nobody builds": Planted(
        "k8s/gpu/kustomization.yaml",
        "newTag: gpu",
        "newTag: cuda",
        ("containers.0.image", "'brigantine:cuda'"),
    ),
    "image of the compose file": Planted(
        "docker-compose.yml",
        "brigantine:latest",
        "brigantine:new",
        ("brigantine-1.image", "'brigantine:new'"),
    ),
    "GPU that is asked for and not given": Planted(
        "k8s/gpu/gpu.yaml",
        'limits: {cpu: "4", memory: 8Gi, nvidia.com/gpu: "1"}',
        'limits: {cpu: "4", memory: 8Gi}',
        ("nvidia.com/gpu", "BRIGANTINE_REQUIRE_GPU"),
    ),
    "patch of nothing": Planted(
        "k8s/gpu/gpu.yaml", "kind: ConfigMap", "kind: Secret", ("gpu.yaml", "'Secret/brigantine'")
    ),
    "target of the autoscaler": Planted(
        f"{BASE}/autoscaler.yaml",
        "kind: Deployment, name: brigantine",
        "kind: Deployment, name: server",
        ("autoscaler.yaml", "scaleTargetRef.name", "'server'"),
    ),
    "replicas of the autoscaler": Planted(
        f"{BASE}/autoscaler.yaml",
        "minReplicas: 2",
        "minReplicas: 20",
        ("autoscaler.yaml", "minReplicas", "got 20"),
    ),
    "file that is not there": Planted(
        f"{BASE}/kustomization.yaml",
        "- service.yaml",
        "- services.yaml",
        ("kustomization.yaml", "'services.yaml'"),
    ),
    "file that a container reads": Planted(
        "docker-compose.yml", "./haproxy.cfg:", "./haproxy.conf:", ("haproxy.volumes", "'./haproxy.conf'")
    ),
    "replica that HAProxy looks for": Planted(
        "docker-compose.yml",
        "REPLICA_2: brigantine-2",
        "REPLICA_2: brigantine-3",
        ("REPLICA_2", "'brigantine-3'"),
    ),
}


def plant(folder: Path, planted: Planted) -> None:
    file = folder / planted.file
    assert planted.old in file.read_text(), "the fault cannot be planted: what is shipped has changed"
    file.write_text(file.read_text().replace(planted.old, planted.new))
