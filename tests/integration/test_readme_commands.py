"""The README's way to a first list, step by step as written; only the addresses differ."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from redis import Redis

from stream_app.embedded import ValkeyServer, free_port
from tests.servers import ApacheKafka

README = (Path(__file__).parents[2] / "README.md").read_text()
DEADLINE_S = 300.0  # only to end a test that hangs


def blocks(language: str) -> list[str]:
    """The code blocks of a language; fences alternate between opening and closing."""
    parts = re.split(r"^```(.*)\n", README, flags=re.MULTILINE)
    return [text for tag, text in zip(parts[1::4], parts[2::4], strict=True) if tag == language]


def block(language: str, word: str) -> str:
    (found,) = (text for text in blocks(language) if word in text)
    return found


@pytest.fixture
def environment(kafka_process: ApacheKafka, valkey: ValkeyServer) -> Iterator[dict[str, str]]:
    """The variables that the README exports, for this test's servers."""
    exported = dict(re.findall(r"^export (\w+)=(\S+)", block("sh", "export"), re.MULTILINE))
    assert set(exported) == {"STREAM_APP_KAFKA_URL", "STREAM_APP_REDIS_URL"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
    exported["STREAM_APP_KAFKA_URL"] = f"kafka://{kafka_process.bootstrap}"
    exported["STREAM_APP_REDIS_URL"] = valkey.url
    yield kept | exported


def faust_commands() -> list[list[str]]:
    lines = [line for line in block("sh", "export").splitlines() if line.startswith("faust ")]
    return [[sys.executable, "-m", *shlex.split(line, comments=True)] for line in lines]


@pytest.mark.kafka_process
def test_the_readmes_first_steps_lead_to_a_list(
    environment: dict[str, str], kafka_process: ApacheKafka, valkey: ValkeyServer, tmp_path: Path
) -> None:
    topics, worker = faust_commands()
    subprocess.run(topics, env=environment, check=True, capture_output=True)
    with (tmp_path / "worker.log").open("wb") as log:
        web = ["--web-port", str(free_port())]
        process = subprocess.Popen([*worker, *web], env=environment, stdout=log, stderr=log)
    try:
        code = block("python", "AIOKafkaProducer").replace(
            "127.0.0.1:9092", kafka_process.bootstrap
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        commands = [shlex.split(line)[1:] for line in block("sh", "redis-cli HGET").splitlines()]
        assert [command[0] for command in commands] == ["HGET", "GET", "GET"]
        with Redis.from_url(valkey.url) as client:
            home, similar, trending = (answer(client, command, process) for command in commands)
    finally:
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "worker.log").read_text()[-3000:]
    assert {item["item_id"] for item in home} == {"sku-1", "sku-2"}
    assert similar[0]["item_id"] == "sku-2"
    assert {item["item_id"] for item in trending} == {"sku-1", "sku-2"}


def answer(
    client: "Redis", command: list[str], worker: subprocess.Popen[bytes]
) -> list[dict[str, object]]:
    """The reply once it is complete; polls, because the worker works on its own."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        assert worker.poll() is None, "the worker ended"
        reply = client.execute_command(*command)  # type: ignore[no-untyped-call]
        found: list[dict[str, object]] = orjson.loads(reply) if reply else []
        if len(found) >= (1 if command[-1].startswith("similar:") else 2):
            return found
        time.sleep(0.1)
    raise AssertionError(f"no answer to {command}")
