"""Read what the worker publishes: lists, dead letters, progress, trending items."""

import asyncio
import time
from typing import Any

import orjson
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from stream_app.demo.stats import Board
from stream_app.demo.worker import DemoFailed
from stream_app.ports import PublicStore
from stream_app.settings import Settings

poll_s = 1.0


async def watch_topics(consumer: Any, settings: Settings, board: Board) -> None:
    """Note every record of the recommendations and dead-letter topics, for ever."""
    async for record in consumer:
        if record.topic == settings.dead_letter_topic:
            headers = dict(record.headers)
            board.dead[headers.get("reason", b"no reason given").decode()] += 1
            continue
        if record.value is None:
            continue  # a tombstone: a session whose history went to its customer at login
        try:
            board.list_seen(orjson.loads(record.value), time.monotonic())
        except (KeyError, TypeError, ValueError) as exc:
            raise DemoFailed(
                f"a record on {record.topic} (partition {record.partition}, offset"
                f" {record.offset}) is not what the worker promises: {exc!r}: {record.value!r:.300}"
            ) from exc


async def watch_trending(store: PublicStore, board: Board) -> None:
    """Read ``trending:all`` every second, for ever."""
    while True:
        value = await store.get("trending:all")
        if isinstance(value, bytes):
            board.trending = orjson.loads(value)
        await asyncio.sleep(poll_s)


async def watch_progress(settings: Settings, board: Board) -> None:
    """Read every second how many events the worker's group has committed, for ever."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    places = [
        TopicPartition(settings.clickstream_topic, partition)
        for partition in range(settings.clickstream_partitions)
    ]
    await admin.start()
    try:
        while True:
            offsets = await admin.list_consumer_group_offsets(settings.app_id, partitions=places)
            done = sum(max(position.offset, 0) for position in offsets.values())
            board.applied = max(done - board.dead.total(), 0)
            await asyncio.sleep(poll_s)
    finally:
        await admin.close()
