"""A shop that runs: a worker on real servers with its web server, and events sent to it."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from redis import Redis

from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.embedded import free_port
from stream_app.ports import Headers, Record
from stream_app.settings import Settings, load_settings, own_topics

DEADLINE_S = 300.0  # only to end a test that hangs
START_S = 900.0  # the same for a worker's first start, which compiles its kernels
TOKEN = "let-me-in-please"


def until(happened: Callable[[], Any], what: str, *, deadline_s: float = DEADLINE_S) -> Any:
    """The first true answer of ``happened``, asked now and then."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if answer := happened():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen in {deadline_s:g} s")


@dataclass
class LiveShop:
    """One worker on a broker and a Valkey of others; topics of its own."""

    bootstrap: str
    redis_url: str
    home: Path
    name: str
    web_port: int = field(default_factory=free_port)
    more: Mapping[str, str] = field(default_factory=dict)
    offsets: int = 0

    def __post_init__(self) -> None:
        token = self.home / "console-token"
        token.write_text(TOKEN)
        variables = {
            "STREAM_APP_KAFKA_URL": f"kafka://{self.bootstrap}",
            "STREAM_APP_REDIS_URL": self.redis_url,
            "STREAM_APP_APP_ID": self.name,
            "STREAM_APP_REFRESH_S": "0.2",
            "STREAM_APP_CONSOLE_TOKEN_FILE": str(token),
            "STREAM_APP_WEB_PORT": str(self.web_port),
            **own_topics(f"{self.name}."),
            **self.more,
        }
        self.settings: Settings = load_settings(variables)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
        self.environment = kept | variables
        self.log_path = self.home / "worker.log"

    def start(self, stack: ExitStack) -> None:
        """Create the topics and start the worker; ready when it answers so."""
        subprocess.run(self._faust("topics"), env=self.environment, check=True, timeout=DEADLINE_S)
        with self.log_path.open("wb") as log:
            worker = subprocess.Popen(
                self._faust("worker", "-l", "info"),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        stack.callback(self._stop, worker)

        def ready() -> bool:
            assert worker.poll() is None, self.log_path.read_text()[-3000:]
            return self.get("/ready")[0] == 200

        until(ready, "readiness", deadline_s=START_S)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Status and body of a page of the worker; 0 while nothing listens."""
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read()
        except OSError:
            return 0, b""

    @property
    def url(self) -> str:
        """Of the worker's web server."""
        return f"http://127.0.0.1:{self.web_port}"

    def send(self, *events: Mapping[str, Any] | bytes) -> None:
        """Produce events, or bytes that are none, keyed by customer."""
        # In a thread, because a browser's driver runs a loop in this one.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self.produce(events)).result()

    def send_as(self, headers: Headers, value: bytes) -> None:
        """Produce one record with headers of its own, which tell its format."""

        async def send() -> None:
            async with KafkaLog([self.bootstrap]) as log:
                await log.send(self.settings.clickstream_topic, 0, [Record(None, value, headers)])

        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, send()).result()
        self.offsets += 1

    async def produce(self, events: Iterable[Mapping[str, Any] | bytes]) -> None:
        """The same inside a loop."""
        parts: dict[int, list[Record]] = {}
        for event in events:
            key = (
                b""
                if isinstance(event, bytes)
                else str(event.get("user_id", event.get("session_id", ""))).encode()
            )
            value = event if isinstance(event, bytes) else orjson.dumps(event)
            p = partition_of(key, self.settings.clickstream_partitions)
            parts.setdefault(p, []).append(Record(key, value))
        async with KafkaLog([self.bootstrap]) as log:
            for p, records in parts.items():
                await log.send(self.settings.clickstream_topic, p, records)
                self.offsets += len(records)

    def wait_for(self, key: str, name: str | None = None) -> Any:
        """A public key's JSON once it is there and not empty."""
        with Redis.from_url(self.redis_url, protocol=2) as client:

            def read() -> Any:
                found = client.hget(key, name) if name else client.get(key)
                return orjson.loads(found) if found else None

            return until(read, f"{key} {name or ''}")

    def _faust(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "faust", "-A", "stream_app.app", *arguments]

    def _stop(self, worker: subprocess.Popen[bytes]) -> None:
        worker.terminate()
        assert worker.wait(60) == 0, self.log_path.read_text()[-3000:]


def view(user: str, item: str, ts: float, **more: Any) -> dict[str, Any]:
    """A view event."""
    return {"event": "view", "user_id": user, "item_id": item, "ts": ts, **more}
