"""What the faults strike: Kafka, Valkey with its log on disk, workers behind proxies, load."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from faults.load import Load
from faults.options import Options
from faults.proxy import Proxy
from faults.schedule import WORKERS
from faults.topologies import Replicated
from faults.workers import ROOT, SupervisedWorker
from stream_app.adapters.generations import GenerationStore
from stream_app.adapters.topics import ensure_topics
from stream_app.embedded import free_port, valkey_server
from stream_app.errors import StoreUnavailable
from stream_app.ports import ACCOUNTS_ID, ITEMS, USERS
from stream_app.settings import Settings, load_settings
from stream_app.worker import redis_store, topic_specs
from tests.servers import ApacheKafka, Listener

POLL_S = 0.25
HANDED_OVER_S = 1.0  # within which what is applied to customers is told to item partitions
COMPILE_TIMEOUT_S = 600
SPARE = 2  # Kafka listener of the workers that come and go
Places = dict[tuple[str, int], int]  # (topic, partition) → offset


class Cluster:
    """Started with :meth:`start`, ended with :meth:`close`, which leaves nothing behind."""

    def __init__(
        self, options: Options, replicated: Callable[[Path], Replicated] | None = None
    ) -> None:
        """On one Valkey, or on servers that fail over, to which workers have no proxies then."""
        self.options = options
        self.dir = Path(tempfile.mkdtemp(prefix="stream-app-faults-"))
        ports = [(free_port(), free_port()) for _ in range(WORKERS + 1)]
        self.kafka = ApacheKafka(
            listeners=[Listener(f"W{n}", port, proxy) for n, (port, proxy) in enumerate(ports)]
        )
        self.kafka_proxies = [Proxy(port, port=proxy) for port, proxy in ports]
        self.replicated = replicated(self.dir) if replicated else None
        self.valkey = valkey_server(data_dir=self.dir / "valkey", appendfsync="everysec")
        self.store_url = (self.replicated or self.valkey).url
        self.settings: Settings = load_settings(
            self._environment(self.kafka.bootstrap, self.store_url)
        )
        self.proxies: list[Proxy] = []
        self.workers: list[SupervisedWorker] = []
        self.store: GenerationStore = redis_store(self.settings)
        self.load = Load(options, self.settings, self.kafka.bootstrap)
        # Of Valkey: cursors may fall between two of them, while it is odd, and only then.
        self.store_lives = 0
        self.fallen_cursors: list[str] = []
        self.clock_off_s = 0.0  # of the workers
        self.upgraded = False  # from a release that kept less
        self.early_commits: list[str] = []
        self.problems: list[str] = []
        self._seen: tuple[int, Places] = (0, {})
        self._watch: asyncio.Task[None] | None = None

    def _environment(self, bootstrap: str, redis_url: str) -> dict[str, str]:
        options = self.options
        return {
            "STREAM_APP_KAFKA_URL": f"kafka://{bootstrap}",
            "STREAM_APP_REDIS_URL": redis_url,
            "STREAM_APP_REDIS_TIMEOUT_S": "2",
            "STREAM_APP_CLICKSTREAM_PARTITIONS": str(options.partitions),
            "STREAM_APP_COOCCURRENCE_PARTITIONS": str(options.partitions),
            "STREAM_APP_SESSION_TIMEOUT_S": str(options.session_timeout_s),
            "STREAM_APP_DRAIN_TIMEOUT_S": "10",
        }

    async def start(self) -> None:
        """Bring everything up and the load on its way."""
        await asyncio.gather(
            asyncio.to_thread(self.kafka.start),
            asyncio.to_thread((self.replicated or self.valkey).start),
        )
        for kafka_proxy in self.kafka_proxies:
            await kafka_proxy.start()
        await ensure_topics(topic_specs(self.settings), brokers=[self.kafka.bootstrap])
        await asyncio.to_thread(_compile_kernels)
        for number in range(WORKERS):
            self.workers.append(await self.worker(f"worker-{number}", number))
        for worker in self.workers:
            worker.start()
        self.load.start()
        self._watch = asyncio.create_task(self.watch_commits())

    async def stop_watching(self) -> None:
        """From now on nobody looks at the committed offsets."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def worker(self, name: str, listener: int = SPARE) -> SupervisedWorker:
        """A worker with proxies of its own, not started; the caller ends it."""
        proxy = Proxy(self.valkey.port)
        await proxy.start()
        self.proxies.append(proxy)
        ours = self._environment(
            f"127.0.0.1:{self.kafka_proxies[listener].port}",
            self.store_url if self.replicated else f"redis://127.0.0.1:{proxy.port}/0",
        )
        others = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
        worker = SupervisedWorker(
            name, others | ours, self.dir / f"{name}.log", guard=self.options.guard
        )
        worker.set_clock(self.clock_off_s)
        return worker

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a command of the product."""
        others = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faust", "-A", "stream_app.app", *arguments),
            env=others | self._environment(self.kafka.bootstrap, self.store_url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace")

    async def extra_worker(self) -> SupervisedWorker:
        """One more that joins the group now; the caller stops it."""
        worker = await self.worker(f"extra-{len(self.proxies)}")
        worker.start()
        self.workers.append(worker)
        return worker

    async def close(self) -> None:
        """Stop everything; the directory goes as well."""
        await self.load.stop()
        await self.stop_watching()
        for worker in self.workers:
            worker.kill()
        for proxy in (*self.proxies, *self.kafka_proxies):
            await proxy.close()
        await self.store.close()
        self.kafka.kill()  # its data goes with it
        self.kafka.close()
        store = self.replicated or self.valkey
        store.kill()
        store.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def primaries(self) -> list[str]:
        """Addresses of the servers that have the keys."""
        servers = self.replicated.primaries() if self.replicated else [self.valkey]
        return [server.url for server in servers]

    # -- where things stand

    async def ends(self) -> Places:
        """Where the partitions of both input topics end now."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap)
        await consumer.start()
        try:
            found = await consumer.end_offsets([TopicPartition(*place) for place in self._places()])
        finally:
            await consumer.stop()
        return {(tp.topic, tp.partition): int(end) for tp, end in found.items()}

    def _places(self) -> list[tuple[str, int]]:
        topics = (self.settings.clickstream_topic, self.settings.cooccurrence_topic)
        return [(topic, p) for topic in topics for p in range(self.options.partitions)]

    async def accounts(self) -> Mapping[tuple[str, int], Mapping[str, int]]:
        """The stored accounts of every partition; raises ``StoreUnavailable``."""
        n = self.options.partitions
        await self.store.follow()
        rows: dict[tuple[str, int], Mapping[str, int]] = {}
        for space, topic in (
            (USERS, self.settings.clickstream_topic),
            (ITEMS, self.settings.cooccurrence_topic),
        ):
            blobs = await self.store.load(space, range(n), [ACCOUNTS_ID] * n)
            for p, blob in enumerate(blobs):
                rows[topic, p] = orjson.loads(blob) if blob else {"cursor": 0}
        return rows

    async def behind(self, ends: Places) -> dict[tuple[str, int], int]:
        """How many records each partition has yet to apply of those before ``ends``."""
        life = self.store_lives
        try:
            rows = await self.accounts()
        except StoreUnavailable:
            return dict(ends)
        cursors = {place: row["cursor"] for place, row in rows.items()}
        if life == self.store_lives:
            seen_life, seen = self._seen
            for place, cursor in cursors.items():
                if seen_life == life and cursor < seen.get(place, 0):
                    self.fallen_cursors.append(f"{place}: {seen[place]} → {cursor}")
            self._seen = life, cursors
        return {place: end - cursors[place] for place, end in ends.items() if cursors[place] < end}

    async def caught_up(self, ends: Places, *, timeout_s: float) -> dict[tuple[str, int], int]:
        """Wait until everything before ``ends`` is applied; returns what is not when it is late."""
        deadline = time.monotonic() + timeout_s
        while True:
            rest = await self.behind(ends)
            if not rest or time.monotonic() > deadline:
                return rest
            await asyncio.sleep(POLL_S)

    async def settled(self, *, timeout_s: float) -> dict[tuple[str, int], int]:
        """Wait until both topics are applied to their ends, which the first moves a bit later."""
        deadline = time.monotonic() + timeout_s
        while True:
            rest = await self.caught_up(await self.ends(), timeout_s=deadline - time.monotonic())
            await asyncio.sleep(HANDED_OVER_S)
            if rest or not await self.behind(await self.ends()):
                return rest

    # -- what the group was told

    async def watch_commits(self) -> None:
        """Until cancelled: no partition's committed offset is above the cursor in the store.

        Lag monitors believe the committed offset. A roll-back of the store may leave it above for
        a while: a partition is judged again when its cursor is where both had been.
        """
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        high: Places = {}
        life = self.store_lives
        try:
            while True:
                await asyncio.sleep(POLL_S)
                try:
                    told = await admin.list_consumer_group_offsets(self.settings.app_id)
                    rows = await self.accounts()
                except (KafkaError, StoreUnavailable, OSError, TimeoutError):
                    continue
                said = {(tp.topic, tp.partition): int(at.offset) for tp, at in told.items()}
                if self.store_lives != life:
                    life = self.store_lives
                    for place, offset in said.items():
                        high[place] = max(high.get(place, 0), offset)
                for place, row in rows.items():
                    offset, cursor = said.get(place, -1), row["cursor"]
                    known = high.get(place, 0)
                    steady = life == self.store_lives and life % 2 == 0
                    if offset > cursor >= known and steady:
                        self.early_commits.append(f"{place}: {offset} committed, {cursor} stored")
                    high[place] = max(known, cursor, offset)
        finally:
            await admin.close()


def _compile_kernels() -> None:
    """Once for all workers, which find them on disk: a fresh machine needs a minute or two."""
    code = "import stream_app.warmup as w, stream_app.settings as s; w.warm_up(s.load_settings({}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=COMPILE_TIMEOUT_S)
