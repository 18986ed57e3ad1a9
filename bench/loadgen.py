"""Open-loop load: events are due at fixed times, whether or not earlier ones were answered.

Latency runs from when an event was *due*, so a generator or system that falls behind cannot hide
it (no coordinated omission). Lists are seen on the topic by a consumer; in Redis, about 150 events
per second are polled for from when the topic has their list: the times in Redis are those when both
have it. Polling for all that is under way, or clients in Python, would take the worker's core.
"""

import asyncio
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import redis.asyncio
from confluent_kafka import OFFSET_END, Consumer, KafkaError, Message, Producer, TopicPartition
from numpy.typing import NDArray

from bench.measure import ContenderFailed
from stream_app.adapters.partitioning import partition_of

TICK_S = 0.004
PROBES_PER_S = 150
POLL_S = 0.002
DRAIN_S = 15.0
POSITIONED_S = 2.0  # until the reader stands at the end of the topic
PROBES_MAX = 500  # waiting at a time
_VERSION = re.compile(rb'"version":(\d+)')


@dataclass(slots=True)
class Phase:
    """What was sent and seen in one phase; times are ``time.monotonic()``."""

    sent: list[tuple[bytes, int, float]] = field(default_factory=list)  # key, offset, due
    seen: dict[bytes, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    read_s: list[float] = field(default_factory=list)
    unread: int = 0

    def is_announced(self, key: bytes, offset: int) -> bool:
        """Whether a list of the customer that knows the event has been seen on the topic."""
        seen = self.seen.get(key)
        return seen is not None and seen[-1][0] > offset

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


class LoadGenerator:
    """Sends to one topic that nobody else sends to, so that offsets are known in advance.

    The first ``there`` of ``records`` are in the topic already.
    """

    def __init__(
        self,
        bootstrap: str,
        redis_url: str,
        *,
        topic: str,
        lists_topic: str,
        partitions: int,
        records: Iterator[tuple[bytes, bytes]],
        there: int,
    ) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 1, "enable.idempotence": True}
        )
        self._refused: list[KafkaError] = []
        self._redis = redis.asyncio.from_url(redis_url, protocol=2)
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "bench-load", "enable.auto.commit": False}
        )
        self._topic, self._lists_topic, self._partitions = topic, lists_topic, partitions
        self._records, self.next_offsets = records, [0] * partitions
        for key, _ in islice(records, there):
            self.next_offsets[partition_of(key, partitions)] += 1

    async def __aenter__(self) -> "LoadGenerator":
        self._consumer.assign(
            [TopicPartition(self._lists_topic, p, OFFSET_END) for p in range(self._partitions)]
        )
        await asyncio.to_thread(self._consumer.poll, POSITIONED_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._producer.flush, DRAIN_S)
        await asyncio.to_thread(self._consumer.close)
        await self._redis.aclose()

    async def run(self, rate: float, seconds: float, *, probe: bool = True) -> Phase:
        """Send ``rate`` events per second for ``seconds``; returns when all are answered."""
        phase = Phase()
        todo: asyncio.Queue[tuple[bytes, int, float]] = asyncio.Queue(PROBES_MAX)
        over = threading.Event()
        helpers = [asyncio.create_task(asyncio.to_thread(self._read_topic, phase, over))]
        if probe:
            helpers.append(asyncio.create_task(self._poll_redis(phase, todo)))
        try:
            await self._send(phase, todo, rate, seconds, probe)
            await self._answered(phase)
        finally:
            phase.unread += todo.qsize()
            over.set()
            for helper in helpers[1:]:
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
        every = max(int(rate / PROBES_PER_S), 1)
        start, done = time.monotonic(), 0
        while done < n:
            due = min(int((time.monotonic() - start) * rate), n)
            for number in range(done, due):
                key, value = ready[number]
                p = partition_of(key, self._partitions)
                self._producer.produce(
                    self._topic, value, key, partition=p, on_delivery=self._delivered
                )
                sent = (key, self.next_offsets[p], start + number / rate)
                self.next_offsets[p] += 1
                phase.sent.append(sent)
                if probe and number % every == 0:
                    if todo.full():
                        phase.unread += 1
                    else:
                        todo.put_nowait(sent)
            done = due
            self._producer.poll(0)
            await asyncio.sleep(TICK_S)
        await asyncio.to_thread(self._producer.flush, DRAIN_S)
        if self._refused:
            raise ContenderFailed(f"{len(self._refused)} events were refused: {self._refused[0]}")

    def _delivered(self, refused: KafkaError | None, _message: Message) -> None:
        if refused is not None:
            self._refused.append(refused)

    def _read_topic(self, phase: Phase, over: threading.Event) -> None:
        while not over.is_set():
            first = self._consumer.poll(0.1)  # ``consume`` alone would wait for a full batch
            if first is None:
                continue
            records = [first, *self._consumer.consume(5_000, 0)]
            now = time.monotonic()
            for record in records:
                key, value = record.key(), record.value()
                if record.error() or key is None or value is None:
                    continue  # the end of a partition, or a tombstone
                version = _VERSION.search(value, 0, 200)
                if version:
                    phase.seen[key].append((int(version[1]), now))

    async def _poll_redis(
        self, phase: Phase, todo: "asyncio.Queue[tuple[bytes, int, float]]"
    ) -> None:
        waiting: list[tuple[bytes, int, float]] = []
        while True:
            while not todo.empty() and len(waiting) < PROBES_MAX:
                waiting.append(todo.get_nowait())
            announced = [probe for probe in waiting if phase.is_announced(*probe[:2])]
            if announced:
                pipe = self._redis.pipeline(transaction=False)
                for key, _, _ in announced:
                    pipe.hget(b"rec:" + key, "version")
                versions = await pipe.execute()
                now = time.monotonic()
                read = set()
                for probe, version in zip(announced, versions, strict=True):
                    if version is not None and int(version) > probe[1]:
                        phase.read_s.append(now - probe[2])
                        read.add(probe)
                waiting = [probe for probe in waiting if probe not in read]
            await asyncio.sleep(POLL_S)

    async def _answered(self, phase: Phase) -> None:
        """Wait for the last events' lists; what is not there after that counts as missing."""
        last = dict((key, offset) for key, offset, _ in phase.sent)
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            if all(phase.is_announced(*one) for one in last.items()):
                await asyncio.sleep(0.3)  # Redis follows the topic
                return
            await asyncio.sleep(0.1)
