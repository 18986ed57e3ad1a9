"""What the faults strike: Kafka, Valkey with its log on disk, a proxy and a worker each, load."""

import asyncio
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from faults.options import Options
from faults.proxy import Proxy
from faults.schedule import WORKERS
from faults.workers import SupervisedWorker
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.redis_store import RedisStore
from stream_app.adapters.topics import ensure_topics
from stream_app.embedded import valkey_server
from stream_app.errors import StoreUnavailable
from stream_app.pipeline import ACCOUNTS_ID
from stream_app.ports import ITEMS, USERS, Record
from stream_app.retrying import retrying
from stream_app.settings import Settings, load_settings
from stream_app.simulator import LIVE, Shop
from stream_app.worker import redis_store, topic_specs
from tests.servers import ApacheKafka

TICK_S = 0.1
POLL_S = 0.25
DIRTY_SHARE = 0.08
ITEMS_N, CUSTOMERS_N = 400, 300
Places = dict[tuple[str, int], int]  # (topic, partition) → offset


class Cluster:
    """Started with :meth:`start`, ended with :meth:`close`, which leaves nothing behind."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.dir = Path(tempfile.mkdtemp(prefix="stream-app-faults-"))
        self.kafka = ApacheKafka()
        self.valkey = valkey_server(data_dir=self.dir / "valkey", appendfsync="everysec")
        self.settings: Settings = load_settings(self._environment(self.valkey.url))
        self.proxies: list[Proxy] = []
        self.workers: list[SupervisedWorker] = []
        self.store: RedisStore = redis_store(self.settings)
        self.log = KafkaLog([self.kafka.bootstrap], client_id="faults-load")
        self.sent = 0
        self.store_lives = 0  # of Valkey: cursors may fall between two of them, and only then
        self.fallen_cursors: list[str] = []
        self.problems: list[str] = []
        self.loading = asyncio.Event()
        self.loading.set()
        self._seen: tuple[int, Places] = (0, {})
        self._load: asyncio.Task[None] | None = None

    def _environment(self, redis_url: str) -> dict[str, str]:
        options = self.options
        return {
            "STREAM_APP_KAFKA_URL": f"kafka://{self.kafka.bootstrap}",
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
            asyncio.to_thread(self.kafka.start), asyncio.to_thread(self.valkey.start)
        )
        await ensure_topics(topic_specs(self.settings), brokers=[self.kafka.bootstrap])
        for number in range(WORKERS):
            self.workers.append(await self._worker(f"worker-{number}"))
        for worker in self.workers:
            worker.start()
        self._load = asyncio.create_task(self._feed())

    async def _worker(self, name: str) -> SupervisedWorker:
        proxy = Proxy(self.valkey.port)
        await proxy.start()
        self.proxies.append(proxy)
        ours = self._environment(f"redis://127.0.0.1:{proxy.port}/0")
        others = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_APP_")}
        return SupervisedWorker(
            name, others | ours, self.dir / f"{name}.log", guard=self.options.guard
        )

    async def extra_worker(self) -> SupervisedWorker:
        """One more that joins the group now; the caller stops it."""
        worker = await self._worker(f"extra-{len(self.proxies)}")
        worker.start()
        self.workers.append(worker)
        return worker

    async def close(self) -> None:
        """Stop everything; the directory goes as well."""
        if self._load is not None:
            self._load.cancel()
            await asyncio.gather(self._load, return_exceptions=True)
        for worker in self.workers:
            worker.kill()
        for proxy in self.proxies:
            await proxy.close()
        await self.store.close()
        self.kafka.kill()  # its data goes with it
        self.kafka.close()
        self.valkey.kill()
        self.valkey.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    # -- load

    async def _feed(self) -> None:
        """The simulated shop at a steady rate; what Kafka does not take waits and follows."""
        shop = Shop(
            seed=self.options.seed,
            n_items=ITEMS_N,
            n_customers=CUSTOMERS_N,
            rate=self.options.rate,
            pace=LIVE,
            dirty=DIRTY_SHARE,
        )
        last = time.monotonic()
        while True:
            if not self.loading.is_set():
                await self.loading.wait()
                last = time.monotonic()
            due = int((time.monotonic() - last) * self.options.rate)
            if due > 0:
                last += due / self.options.rate
                now = time.time()
                times = now - TICK_S * (1.0 - np.arange(1, due + 1) / due)
                await self._send(shop.records(shop.rows(due), times))
                self.sent += due
            await asyncio.sleep(TICK_S)

    async def _send(self, events: list[tuple[bytes, bytes]]) -> None:
        records: dict[int, list[Record]] = defaultdict(list)
        for key, value in events:
            records[partition_of(key, self.options.partitions)].append(Record(key, value))
        topic = self.settings.clickstream_topic
        for partition, part in records.items():
            await retrying(
                lambda p=partition, r=part: self.log.send(topic, p, r),  # type: ignore[misc]
                "sending load",
            )

    async def stop_load(self) -> None:
        """Send no more; what was being sent is there or not, the log says."""
        assert self._load is not None
        self._load.cancel()
        await asyncio.gather(self._load, return_exceptions=True)
        await self.log.stop()

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
        """Wait until both topics are applied to their ends, which the first makes move."""
        deadline = time.monotonic() + timeout_s
        while True:
            rest = await self.caught_up(await self.ends(), timeout_s=deadline - time.monotonic())
            if rest or not await self.behind(await self.ends()):
                return rest
