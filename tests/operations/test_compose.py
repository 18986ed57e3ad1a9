"""The compose file is what Docker accepts, and serves where the pages say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from stream_app.settings import load_settings
from tests.operations.tools import missing

ROOT = Path(__file__).parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def compose(path: Path) -> subprocess.CompletedProcess[str]:
    """What Docker makes of the file, with every profile."""
    profiles = ["--profile", "monitoring", "--profile", "tools"]
    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        return run("docker", "compose", "-f", str(path), *profiles, "config")
    if shutil.which("docker-compose") is None:
        missing("neither docker compose nor docker-compose is installed")
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


def published() -> dict[str, str]:
    """Of compose's services: what a program of this machine connects to, the first of a range."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ports = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert all(len(each) == 1 for each in ports.values())
    return {name: re.sub(r"(-\d+)?:\d+$", "", each[0]) for name, each in ports.items()}


def test_compose_serves_at_the_addresses_that_pages_and_defaults_have() -> None:
    at = published()
    told = (ROOT / "docker-compose.yml").read_text()
    assert f"OUTSIDE://{at['kafka']}\n" in told, "Kafka sends its clients elsewhere"
    default = load_settings({})
    assert (default.bootstrap, default.redis_url) == (at["kafka"], f"redis://{at['redis']}/0")
    assert f"{default.web_host}:{default.web_port}" == at["worker"]
    for page in ("docs/quickstart.md", "docs/deployment.md", "examples/storefront/README.md"):
        named = set(re.findall(r"127\.0\.0\.1:\d+", (ROOT / page).read_text()))
        bridge = {"127.0.0.1:8080"} if "storefront" in page else set()
        assert named - bridge <= set(at.values()), page
    page = (ROOT / "docs" / "deployment.md").read_text()
    for name, port in (("Kafka", "kafka"), ("Valkey", "redis")):
        assert f"{name} {at[port].rpartition(':')[2]}" in page


def test_composes_worker_has_a_console_with_a_token_of_its_own(tmp_path: Path) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    worker = services["worker"]
    token = worker["environment"]["STREAM_APP_CONSOLE_TOKEN_FILE"]
    assert f"docker compose exec worker cat {token}" in (ROOT / "docs/deployment.md").read_text()
    assert "/tmp" in worker["tmpfs"]
    # As the container runs it, elsewhere, and with what would be the worker.
    shell, flag, script = worker["command"]
    script = script.replace(token, str(tmp_path / "token")).replace("python ", f"{sys.executable} ")
    started, tokens = script.replace("exec faust", "exec echo"), set()
    for _ in range(2):
        done = run(shell, flag, started)
        assert done.stdout.split() == "-A stream_app.app worker -l info".split(), done.stderr
        assert (tmp_path / "token").stat().st_mode & 0o077 == 0
        given = {"STREAM_APP_CONSOLE_TOKEN_FILE": str(tmp_path / "token")}
        secret = load_settings(given).console_token()
        assert secret is not None
        tokens.add(secret.get_secret_value())
    assert len(tokens) == 2


def test_what_compose_mounts_is_there() -> None:
    for service in yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (ROOT / volume.partition(":")[0]).exists(), volume
