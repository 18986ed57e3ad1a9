"""The image of deploy/Dockerfile is built, and its worker makes lists of a shop's events, answers
messages to customer service and sends traces.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from packaging.requirements import Requirement

from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import consume
from stream_app.embedded import valkey_server
from stream_app.ports import Record
from tests.integration.test_signals import MESSAGES
from tests.operations.image import ROOT, Builder, Container, inside
from tests.operations.live import LiveShop, until, view
from tests.servers import Kafka

COUNT_KERNELS = 'find "$0" -name "*.nbc" | wc -l'
OF_EXTRAS = "vaderSentiment.vaderSentiment, opentelemetry.exporter.otlp.proto.http.trace_exporter"
ANSWER_S = 120  # only to end a test that hangs


@contextmanager
def collector() -> Iterator[tuple[str, list[str]]]:
    """An OpenTelemetry collector's address, and the paths of what it was sent."""
    sent: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            sent.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    builder = Builder(tmp_path_factory.mktemp("image"))
    try:
        yield Container(builder, builder.build())
    finally:
        builder.remove()


@dataclass
class ContainedShop(LiveShop):
    """A worker in a container, started as an engine would: entry point, then command."""

    container: Container | None = None

    def _faust(self, *arguments: str) -> list[str]:
        assert self.container is not None
        prefixes = ("STREAM_APP_", "OTEL_")
        own = {k: v for k, v in self.environment.items() if k.startswith(prefixes)}
        config = self.container.config
        command = config["Cmd"] if arguments[0] == "worker" else [*config["Cmd"][:3], *arguments]
        return self.container.command(
            [*config["Entrypoint"], *command], environment=own, mounted=[self.home]
        )

    def _stop(self, worker: subprocess.Popen[bytes]) -> None:
        assert self.container is not None
        stop = signal.Signals[self.container.config["StopSignal"]]
        os.kill(inside(worker.pid), stop)  # Buildah would end it at once, an engine does this
        assert worker.wait(60) == 0, self.log_path.read_text()[-3000:]

    async def answer(self, user: str, text: str) -> dict[str, Any]:
        """What ``support-assist`` says of the first message to customer service."""
        settings, key = self.settings, user.encode()
        message = json.dumps({"message_id": "m1", "user_id": user, "text": text}).encode()
        p = partition_of(key, settings.clickstream_partitions)
        async with KafkaLog([self.bootstrap]) as log:
            await log.send(settings.support_topic, p, [Record(key, message)])
        for _ in range(ANSWER_S):
            said = consume(settings.support_assist_topic, brokers=[self.bootstrap])
            for record in [record async for record in said]:
                found: dict[str, Any] = json.loads(record.value or b"")
                return found
            await asyncio.sleep(1)
        raise AssertionError(self.log_path.read_text()[-3000:])


def test_it_holds_what_is_locked_and_says_so(container: Container) -> None:
    bill = json.loads(container.run("cat", "/opt/stream_app/sbom.cdx.json"))
    held = {(part["name"].lower(), part["version"]) for part in bill["components"]}
    lines = re.findall(r"^\w[^\\\n]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    locked = {
        (one.name.lower(), str(one.specifier).removeprefix("=="))
        for one in map(Requirement, lines)
        if one.marker is None or one.marker.evaluate()
    }
    assert len(locked) > 20
    assert held == locked
    container.run("python", "-c", f"import {OF_EXTRAS}")


def test_its_user_is_nobody_in_particular(container: Container) -> None:
    assert container.run("id", "-u") == "10001"
    assert container.run("sh", "-c", "touch /opt/stream_app/x 2>/dev/null || echo no") == "no"


def test_its_worker_makes_lists_answers_messages_and_sends_traces(
    container: Container, kafka: Kafka, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("contained")
    for path in (home, *home.parents[:2]):
        path.chmod(0o755)
    with ExitStack() as stack:
        valkey = stack.enter_context(valkey_server())
        address, traces = stack.enter_context(collector())
        (home / "messages.csv").write_text(MESSAGES)
        more = {
            "STREAM_APP_SUPPORT_TRAIN_FILE": str(home / "messages.csv"),
            "STREAM_APP_TRACES": "otlp",
            "STREAM_APP_TRACE_SHARE": "1",
        }
        shop = ContainedShop(
            kafka.bootstrap, valkey.url, home, "contained-shop", more=more, container=container
        )
        shop.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
        shop.start(stack)
        now = time.time() - 60
        shop.send(*(view(f"c{u}", f"p{(u + k) % 6}", now + k) for k in range(4) for u in range(8)))
        shop.wait_for("similar:p2")
        shop.send(view("c9", "p2", now + 9))
        entries = shop.wait_for("rec:c9", "home")
        assert {entry["item_id"] for entry in entries} & {"p1", "p3"}
        answer = asyncio.run(shop.answer("c9", "where is my order? this is horrible!"))
        assert answer["intent"] == "track_order"
        assert answer["sentiment"] < 0
        assert answer["journey"]
        until(lambda: "/v1/traces" in traces, "a trace")
        check = container.config["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        port = {"STREAM_APP_WEB_PORT": str(shop.web_port)}
        container.run(*check[1:], environment=port)
        with pytest.raises(AssertionError):
            container.run(*check[1:], environment={"STREAM_APP_WEB_PORT": "1"})
    brought = container.run("sh", "-c", COUNT_KERNELS, "/home/stream_app/kernels")
    used = container.run("sh", "-c", COUNT_KERNELS, "/home/stream_app/.cache/numba")
    assert int(brought) > 30
    assert used == brought, "it compiled kernels that the image has, or should have"
