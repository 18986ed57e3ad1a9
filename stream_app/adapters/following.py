"""Read topics from their beginning and on, outside any group: for who rebuilds what they say."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError

from stream_app.adapters.cancelling import uncancelled
from stream_app.adapters.kafka import Security, bootstrap_servers, translated
from stream_app.adapters.pacing import paced
from stream_app.adapters.topics import raw_batch
from stream_app.errors import ConfigurationError
from stream_app.ports import RawBatch

POLL_MS = 200
FETCH_RECORDS = 8_000


async def followed(
    topics: Sequence[str],
    *,
    brokers: Sequence[str],
    records_max: int,
    security: Security | None = None,
) -> AsyncIterator[tuple[list[RawBatch], int]]:
    """Yield batches of at most ``records_max`` records each, and how many are still to come.

    Goes on for ever; the second number is what the last fetches knew, and falls to about nothing
    once the reader has caught up. Raises ``LogUnavailable`` when the brokers cannot be reached,
    ``ConfigurationError`` for a topic that does not exist.
    """
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers(brokers),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=POLL_MS,
        **(security or Security()).client_arguments(),
    )
    paced(consumer._client)
    try:
        await consumer.start()
        places = []
        for topic in topics:
            found = await consumer._client._wait_on_metadata(topic)
            places += [aiokafka.TopicPartition(topic, p) for p in sorted(found or ())]
        if {tp.topic for tp in places} != set(topics):
            raise ConfigurationError(f"not all of {list(topics)} exist; the topics command does it")
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        while True:
            fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=FETCH_RECORDS)
            batches = [
                raw_batch(records[start : start + records_max])
                for records in fetched.values()
                for start in range(0, len(records), records_max)
            ]
            yield batches, await _lag(consumer, places)
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, f"cannot follow {list(topics)} at {list(brokers)}") from exc
    finally:
        await uncancelled(consumer.stop())


async def _lag(consumer: Any, places: Sequence[Any]) -> int:
    """Records not yet handed out, over all partitions; −1 while one has not been looked at."""
    lag = 0
    for tp in places:
        end = consumer.highwater(tp)
        if end is None:
            return -1
        lag += max(0, end - await consumer.position(tp))
    return lag
