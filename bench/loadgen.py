"""Open-loop load: events are due at fixed times, whether or not earlier ones were answered.

Latency runs from when an event was *due*, so a generator or system that falls behind cannot hide
it (no coordinated omission). Lists are seen on the topic by a consumer, in Redis by polling for
about 150 events per second.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import redis.asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from numpy.typing import NDArray

from bench.measure import ContenderFailed
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.ports import Record

TICK_S = 0.004
PROBES_PER_S = 150
POLL_S = 0.002
DRAIN_S = 15.0
PROBES_MAX = 500  # waiting at a time
_VERSION = re.compile(rb'"version":(\d+)')


@dataclass(slots=True)
class Phase:
    """What was sent and seen in one phase; times are ``time.monotonic()``."""

    sent: list[tuple[bytes, int, float]] = field(default_factory=list)  # key, offset, due
    seen: dict[bytes, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    read_s: list[float] = field(default_factory=list)
    unread: int = 0

    def topic_s(self) -> tuple[NDArray[np.float64], int]:
        """Latency to the topic of every event, and how many never got there.

        An event is answered by the first list of its customer with a higher version.
        """
        latencies, missing = [], 0
        at: dict[bytes, int] = defaultdict(int)
        for key, offset, due in self.sent:  # offsets of a key rise
            lists = self.seen.get(key, [])
            while at[key] < len(lists) and lists[at[key]][0] <= offset:
                at[key] += 1
            if at[key] < len(lists):
                latencies.append(lists[at[key]][1] - due)
            else:
                missing += 1
        return np.array(latencies), missing


class _Line:
    """What is due in one partition: one request at a time, records gather behind it."""

    def __init__(self, log: KafkaLog, topic: str, partition: int) -> None:
        self._log, self._topic, self._partition = log, topic, partition
        self.waiting: list[Record] = []
        self._task: asyncio.Task[None] | None = None

    def go(self) -> None:
        """Send, unless that is under way."""
        if self._task is not None and self._task.done():
            self._task.result()
            self._task = None
        if self.waiting and self._task is None:
            self._task = asyncio.create_task(self._send())

    async def sent(self) -> None:
        """Wait for the rest."""
        if self._task is not None:
            await self._task
        await self._send()

    async def _send(self) -> None:
        while self.waiting:
            records, self.waiting = self.waiting, []
            await self._log.send(self._topic, self._partition, records)


class LoadGenerator:
    """Sends to one topic that nobody else sends to, so that offsets are known in advance."""

    def __init__(
        self,
        bootstrap: str,
        redis_url: str,
        *,
        topic: str,
        lists_topic: str,
        partitions: int,
        records: Iterator[tuple[bytes, bytes]],
        next_offsets: list[int],
    ) -> None:
        self._log = KafkaLog([bootstrap], client_id="bench-load")
        self._redis = redis.asyncio.from_url(redis_url, protocol=2)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, fetch_max_wait_ms=100, auto_offset_reset="latest"
        )
        self._topic, self._lists_topic, self._partitions = topic, lists_topic, partitions
        self._records, self.next_offsets = records, next_offsets

    async def __aenter__(self) -> "LoadGenerator":
        await self._log.start()
        await self._consumer.start()
        partitions = [TopicPartition(self._lists_topic, p) for p in range(self._partitions)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._log.stop()
        await self._redis.aclose()

    async def run(self, rate: float, seconds: float, *, probe: bool = True) -> Phase:
        """Send ``rate`` events per second for ``seconds``; returns when all are answered."""
        phase = Phase()
        todo: asyncio.Queue[tuple[bytes, int, float]] = asyncio.Queue(PROBES_MAX)
        helpers = [asyncio.create_task(self._read_topic(phase))]
        if probe:
            helpers.append(asyncio.create_task(self._poll_redis(phase, todo)))
        try:
            await self._send(phase, todo, rate, seconds, probe)
            await self._answered(phase)
        finally:
            phase.unread += todo.qsize()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        return phase

    async def _send(
        self,
        phase: Phase,
        todo: "asyncio.Queue[tuple[bytes, int, float]]",
        rate: float,
        seconds: float,
        probe: bool,
    ) -> None:
        n = int(rate * seconds)
        ready = list(islice(self._records, n))  # made beforehand: rendering is not the load
        if len(ready) < n:
            raise ContenderFailed(f"the load has {len(ready)} events left, {n} are needed")
        lines = [_Line(self._log, self._topic, p) for p in range(self._partitions)]
        every = max(int(rate / PROBES_PER_S), 1)
        start, done = time.monotonic(), 0
        while done < n:
            due = min(int((time.monotonic() - start) * rate), n)
            for number in range(done, due):
                key, value = ready[number]
                p = partition_of(key, self._partitions)
                lines[p].waiting.append(Record(key, value))
                sent = (key, self.next_offsets[p], start + number / rate)
                self.next_offsets[p] += 1
                phase.sent.append(sent)
                if probe and number % every == 0:
                    if todo.full():
                        phase.unread += 1
                    else:
                        todo.put_nowait(sent)
            done = due
            for line in lines:
                line.go()
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*(line.sent() for line in lines))

    async def _read_topic(self, phase: Phase) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=200, max_records=5_000)
            now = time.monotonic()
            for records in fetched.values():
                for record in records:
                    if record.value is None:
                        continue  # a tombstone
                    version = _VERSION.search(record.value, 0, 200)
                    if version:
                        phase.seen[record.key].append((int(version[1]), now))

    async def _poll_redis(
        self, phase: Phase, todo: "asyncio.Queue[tuple[bytes, int, float]]"
    ) -> None:
        waiting: list[tuple[bytes, int, float]] = []
        while True:
            while not todo.empty() and len(waiting) < PROBES_MAX:
                waiting.append(todo.get_nowait())
            if waiting:
                pipe = self._redis.pipeline(transaction=False)
                for key, _, _ in waiting:
                    pipe.hget(b"rec:" + key, "version")
                versions = await pipe.execute()
                now = time.monotonic()
                late = []
                for probe, version in zip(waiting, versions, strict=True):
                    if version is not None and int(version) > probe[1]:
                        phase.read_s.append(now - probe[2])
                    else:
                        late.append(probe)
                waiting = late
            await asyncio.sleep(POLL_S)

    async def _answered(self, phase: Phase) -> None:
        """Wait for the last events' lists; what is not there after that counts as missing."""
        last = dict((key, offset) for key, offset, _ in phase.sent)
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            if all(phase.seen.get(k) and phase.seen[k][-1][0] > o for k, o in last.items()):
                await asyncio.sleep(0.3)  # Redis follows the topic
                return
            await asyncio.sleep(0.1)
