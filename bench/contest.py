"""Start a contender in a fresh process with a fresh Redis server, and measure it on the load."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench.measure import ContenderFailed, Window, observe, window
from bench.prime import Prime
from bench.progress import Counts, Progress
from bench.servers import Broker, RedisKind, Servers, one_redis
from stream_app.adapters.topics import TopicSpec, ensure_topics
from stream_app.embedded import free_port
from stream_app.settings import Settings, load_settings, own_topics
from stream_app.worker import topic_specs

ROOT = Path(__file__).parents[1]
BATCH: int = Settings.model_fields["batch_events_max"].default  # of everybody
STOP_S = 20.0
LOG_TAIL = 3_000
SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Contender:
    """A program and how much of the load it gets.

    ``primed`` ones get the load's tail and the state of what came before.
    ``ours`` are configured by ``STREAM_APP_*``, others by ``BENCH_*``. ``accounts`` says that
    progress is read from Redis, as the product accounts there; others report in a
    :class:`~bench.progress.Progress` file.
    """

    name: str
    title: str
    command: Callable[[], list[str]]
    events: int
    warm: int
    previous: int = 3
    ours: bool = False
    accounts: bool = False
    primed: bool = False
    workers: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contest takes place: the broker, the filled topics, their partitions.

    ``tail`` has the events after those that ``prime`` was made from.
    """

    broker: Broker
    topic: str
    partitions: int
    tail: str = ""
    prime: Prime | None = None


class Account:
    """Reads the product's own accounts from Redis: cursors of both stages."""

    def __init__(self, servers: Servers, users: int, items: int) -> None:
        self._servers = servers
        self._users = [f"sa1:{{u{p}}}:accounts" for p in range(users)]
        self._items = [f"sa1:{{i{p}}}:accounts" for p in range(items)]

    def counts(self) -> Counts:
        """Applied is LEARN's cursor; "pending" is RELATE's, which only has to come to rest."""
        blobs = self._servers.get_all([*self._users, *self._items])
        cursors = [orjson.loads(blob)["cursor"] if blob else 0 for blob in blobs]
        users = len(self._users)
        return Counts(applied=sum(cursors[:users]), pending=sum(cursors[users:]))


@dataclass(frozen=True, slots=True)
class Running:
    """A started contender: its processes by part, its progress, its settings, its Redis."""

    workers: list["subprocess.Popen[bytes]"]
    parts: Mapping[str, Sequence[int]]
    progress: Callable[[], Counts]
    settings: Mapping[str, str]
    servers: Servers


@contextmanager
def started(
    contender: Contender, place: Place, *, redis_kind: RedisKind = one_redis
) -> Iterator[Running]:
    """Fresh processes and servers; ``ContenderFailed`` gets the end of their log added."""
    group = f"{contender.name}-{uuid.uuid4().hex[:8]}"
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        redis_kind() as servers,
        Path(directory, "log").open("w+b") as log,
    ):
        path = Path(directory, "progress")
        Progress.create(path)
        settings = _environment(contender, place, group, servers.url, directory)
        asyncio.run(_topics(contender, place, settings, group))
        if contender.primed and place.prime is not None:
            place.prime.write(servers.url)
        environment = _inherited() | settings
        commands = [contender.command() for _ in range(contender.workers)]
        if contender.ours:
            commands = [[*command, str(free_port())] for command in commands]
        progress = Progress(path).counts
        if contender.accounts:
            progress = Account(servers, place.partitions, place.partitions).counts
        workers = [
            subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
            for command in commands
        ]
        parts = {
            "worker": [worker.pid for worker in workers],
            "broker": [place.broker.pid],
            "redis": servers.pids,
        }
        try:
            yield Running(workers, parts, progress, settings, servers)
        except ContenderFailed as exc:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL))
            raise ContenderFailed(f"{contender.name}: {exc}\n{log.read().decode()}") from exc
        finally:
            stop(workers)


def run(
    contender: Contender,
    place: Place,
    *,
    redis_kind: RedisKind = one_redis,
    afterwards: Callable[[Running, Window], dict[str, Any]] | None = None,
) -> tuple[Window, dict[str, Any]]:
    """One run over the load; ``afterwards`` may look at what it left behind.

    Raises ``ContenderFailed`` with the end of its log.
    """
    with started(contender, place, redis_kind=redis_kind) as running:
        samples = observe(
            running.progress,
            running.parts,
            running.workers,
            warm=contender.warm,
            total=contender.events,
            settle_s=SETTLE_S if contender.accounts else 0.0,
            timeout_s=contender.timeout_s,
        )
        measured = window(samples, running.parts, warm=contender.warm, total=contender.events)
        return measured, afterwards(running, measured) if afterwards else {}


def stop(workers: list["subprocess.Popen[bytes]"]) -> None:
    """End processes in order, by force after a while."""
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for worker in workers:
        try:
            worker.wait(STOP_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _inherited() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STREAM_APP_", "BENCH_"))
    }
    return kept | {"PYTHONPATH": str(ROOT)}


def _environment(
    contender: Contender, place: Place, group: str, redis_url: str, directory: str
) -> dict[str, str]:
    if contender.ours:
        return {
            "STREAM_APP_KAFKA_URL": f"kafka://{place.broker.bootstrap}",
            "STREAM_APP_REDIS_URL": redis_url,
            "STREAM_APP_APP_ID": group,
            **own_topics(f"{group}-"),
            "STREAM_APP_CLICKSTREAM_TOPIC": place.topic,
            "STREAM_APP_CLICKSTREAM_PARTITIONS": str(place.partitions),
            "STREAM_APP_COOCCURRENCE_PARTITIONS": str(place.partitions),
            "BENCH_PROGRESS": str(Path(directory) / "progress"),
            **contender.settings,
        }
    return {
        "BENCH_BOOTSTRAP": place.broker.bootstrap,
        "BENCH_REDIS_URL": redis_url,
        "BENCH_TOPIC": place.tail if contender.primed else place.topic,
        "BENCH_OUT_TOPIC": f"{group}-lists",
        "BENCH_GROUP": group,
        "BENCH_PREVIOUS": str(contender.previous),
        "BENCH_BATCH": str(BATCH),
        "BENCH_PROGRESS": str(Path(directory) / "progress"),
        "BENCH_DIR": directory,
        **contender.settings,
    }


async def _topics(
    contender: Contender, place: Place, settings: Mapping[str, str], group: str
) -> None:
    if contender.ours:
        own = load_settings(settings)
        specs = [spec for spec in topic_specs(own) if spec.name != place.topic]
    else:  # the last two are of the Kafka Streams program
        names = (settings["BENCH_OUT_TOPIC"], f"{group}-pairs", f"{group}-neighbours")
        specs = [TopicSpec(name, place.partitions, 1) for name in names]
    await ensure_topics(specs, brokers=[place.broker.bootstrap])


def python_module(module: str, *arguments: str) -> list[str]:
    """Command line of a module of ours."""
    return [sys.executable, "-m", module, *arguments]
