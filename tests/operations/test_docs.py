"""Every snippet of the documentation marked runnable runs as written; only addresses differ."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.embedded import free_port, valkey_server
from tests.operations.live import LiveShop
from tests.servers import Kafka

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = re.compile(r"^```sh(?: runnable)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r"<<END(.*?)\n.*?^END$", re.MULTILINE | re.DOTALL)
NEWCOMER_COMMANDS_MAX = 10
FENCE = re.compile(r"^```(sh|python) runnable\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OWN_SERVERS = {"quickstart.md"}  # begins with nothing but Kafka and Redis
page_timeout_s = 540  # generous: only a hang fails on it


def snippets(page: Path) -> list[tuple[str, str]]:
    """Language and text of the runnable ones, in order."""
    return FENCE.findall(page.read_text())


def script(page: Path, kafka: str, redis: str) -> str:
    """The page as one shell script, so that variables and background jobs live on."""
    parts = ["set -euo pipefail"]
    for language, text in snippets(page):
        text = text.replace("127.0.0.1:9092", kafka)
        text = text.replace("redis://127.0.0.1:6379/0", redis)
        if language == "python":
            text = f"python - <<'PYTHON'\n{text}PYTHON\n"
        parts.append(text)
    return "\n".join(parts)


def executed(text: str, environment: dict[str, str], home: Path) -> None:
    """Run a script in a directory of its own; what it leaves running ends with it."""
    shell = subprocess.Popen(
        ["bash", "-c", text],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        # A background job keeps the pipe open: wait for the shell, not for the pipe's end.
        code = shell.wait(page_timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it left nothing running
            os.killpg(shell.pid, signal.SIGTERM)
        output, _ = shell.communicate(timeout=60)
    assert code == 0, output[-4000:]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    yield kept | {"PATH": tools, "PYTHONPATH": str(ROOT)}


def test_pages_have_runnable_snippets() -> None:
    assert {page.name for page in PAGES if snippets(page)} >= {"quickstart.md", "howto.md"}


@pytest.mark.parametrize(
    "page", [p for p in PAGES if snippets(p) and p.name not in OWN_SERVERS], ids=lambda p: p.name
)
def test_snippets_run_against_a_running_worker(
    page: Path, live: LiveShop, environment: dict[str, str], tmp_path: Path
) -> None:
    ours = {k: v for k, v in live.environment.items() if k.startswith("STREAM_APP_")}
    executed(script(page, live.bootstrap, live.redis_url), environment | ours, tmp_path)


def test_a_newcomer_needs_ten_commands_from_clone_to_own_data_in_own_redis() -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    typed = HERE_DOCUMENT.sub(r"\1", "".join(SHELL.findall(page))).splitlines()
    last = next(at for at, line in enumerate(typed) if "similar" in line)
    path = [line.partition(" # ") for line in typed[: last + 1]]
    assert path[0][0].startswith("git clone")
    assert [int(note.partition(":")[0]) for _, _, note in path] == list(range(1, len(path) + 1))
    assert len(path) <= NEWCOMER_COMMANDS_MAX
    for command, _, _ in path:  # two on one line are two
        waited = re.sub(r"^until (.*); do sleep 5; done", r"\1", command.strip())
        assert not re.search(r"&&|\|\||;|\|", waited), command


@pytest.mark.slow
def test_the_quickstart_leads_from_nothing_to_a_list(
    kafka: Kafka, environment: dict[str, str], tmp_path: Path
) -> None:
    with valkey_server() as valkey:
        environment["STREAM_APP_WEB_PORT"] = str(free_port())
        text = script(ROOT / "docs" / "quickstart.md", kafka.bootstrap, valkey.url)
        executed(text, environment, tmp_path)
