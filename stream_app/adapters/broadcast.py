"""Read a whole compacted topic into this process and follow it: catalog, users, rules.

Every worker needs every record, so there is no consumer group. Called by the worker.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from stream_app.adapters.cancelling import uncancelled
from stream_app.adapters.kafka import Security, bootstrap_servers, translated
from stream_app.adapters.topics import end_offset, raw_batch
from stream_app.errors import ConfigurationError
from stream_app.ports import RawBatch
from stream_app.retrying import FIRST_WAIT_S, LONGEST_WAIT_S

log = logging.getLogger(__name__)

POLL_MS = 500  # length of one look; new records end it at once
RECORDS_MAX = 500  # handed over at once: a few tens of milliseconds of work
METADATA_AGE_MS = 30_000  # until a partition that was added is noticed
MISSING_WAIT_S = 10.0
ASSIGNMENT_TIMEOUT_S = 30.0

Handler = Callable[[RawBatch], Awaitable[None]]


class TopicMissing(Exception):
    """The topic does not exist (yet)."""


class Broadcast:
    """Hands the records of all partitions of ``topic`` to ``handler``, in order per partition.

    Positions are kept here: after a lost connection it goes on where it was, after a restart it
    begins at the beginning. Kafka's refusals that no retry can heal raise ``ConfigurationError``.
    """

    def __init__(
        self,
        topic: str,
        handler: Handler,
        *,
        brokers: Sequence[str],
        security: Security | None = None,
    ) -> None:
        self.topic = topic
        self.position: dict[int, int] = {}
        self._handler = handler
        self._ends: dict[int, int] = {}
        self._arguments = {
            "bootstrap_servers": bootstrap_servers(brokers),
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "fetch_max_wait_ms": POLL_MS,
            "metadata_max_age_ms": METADATA_AGE_MS,
            **(security or Security()).client_arguments(),
        }
        self._consumer: Any = None

    async def load(self) -> bool:
        """Hand over all there is now; False when the topic does not exist."""
        try:
            await self._read(self._loaded)
        except TopicMissing:
            return False
        return True

    async def follow(self) -> None:
        """Hand over what comes, until cancelled; waits for a topic that does not exist yet."""
        while True:
            try:
                await self._read(lambda: False)
            except TopicMissing:
                await asyncio.sleep(MISSING_WAIT_S)

    def lag(self) -> int:
        """Records that are known to be there and have not been handed over."""
        return sum(max(end - self.position.get(p, 0), 0) for p, end in self._ends.items())

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                await uncancelled(consumer.stop())
            except (KafkaError, TimeoutError, OSError) as exc:
                log.warning("the reader of %s did not stop cleanly: %r", self.topic, exc)

    def _loaded(self) -> bool:
        return bool(self.position) and all(
            partition in self._ends and position >= self._ends[partition]
            for partition, position in self.position.items()
        )

    async def _read(self, done: Callable[[], bool]) -> None:
        """Read until ``done``; a lost connection is made again with back-off, without end."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                await self._step(await self._connected())
                wait_s = FIRST_WAIT_S
            except UnknownTopicOrPartitionError as exc:
                await self.close()
                raise TopicMissing(self.topic) from exc
            except (KafkaError, TimeoutError, OSError) as exc:
                error = translated(exc, f"cannot read {self.topic}")
                await self.close()
                if isinstance(error, ConfigurationError):
                    raise error from exc
                log.warning("%s; trying again in %.2g s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            if done():
                return

    async def _step(self, consumer: Any) -> None:
        fetched = await consumer.getmany(
            # The end of an empty partition is learned from its first answer, which is no record.
            timeout_ms=POLL_MS if len(self._ends) == len(self.position) else 20,
            max_records=RECORDS_MAX,
        )
        for tp, records in fetched.items():
            await self._handler(raw_batch(records))
            self.position[tp.partition] = records[-1].offset + 1
            await asyncio.sleep(0)  # heartbeats and events of customers go first
        for tp in consumer.assignment():
            # Also past what compaction and transactions leave without a record.
            reached = await consumer.position(tp)
            self.position[tp.partition] = max(self.position.get(tp.partition, 0), reached)
            end = end_offset(consumer, tp)
            if end is not None:
                self._ends[tp.partition] = end

    async def _connected(self) -> Any:
        if self._consumer is None:
            consumer = aiokafka.AIOKafkaConsumer(**self._arguments)
            try:
                await consumer.start()
                # Asked first: subscribing to what does not exist takes 40 s to fail.
                if self.topic not in await consumer.topics():
                    raise TopicMissing(self.topic)
                consumer.subscribe([self.topic])
                async with asyncio.timeout(ASSIGNMENT_TIMEOUT_S):
                    while not consumer.assignment():  # noqa: ASYNC110 - aiokafka has no event
                        await asyncio.sleep(0.01)
                for tp in consumer.assignment():
                    consumer.seek(tp, self.position.setdefault(tp.partition, 0))
            except BaseException:
                await uncancelled(consumer.stop())
                raise
            self._consumer = consumer
        return self._consumer


async def partition_batches(
    topic: str, partition: int, *, brokers: Sequence[str], security: Security | None = None
) -> AsyncIterator[RawBatch]:
    """The records of one partition from the beginning to its end of now.

    Raises ``LogUnavailable`` or ``ConfigurationError``; nothing is committed.
    """
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers(brokers),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=POLL_MS,
        **(security or Security()).client_arguments(),
    )
    tp = aiokafka.TopicPartition(topic, partition)
    try:
        await consumer.start()
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        end: int | None = None
        while end is None or await consumer.position(tp) < end:
            fetched = await consumer.getmany(timeout_ms=20, max_records=RECORDS_MAX)
            if end is None:
                end = end_offset(consumer, tp)
            for records in fetched.values():
                yield raw_batch(records)
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, f"cannot read {topic}-{partition}") from exc
    finally:
        await uncancelled(consumer.stop())
