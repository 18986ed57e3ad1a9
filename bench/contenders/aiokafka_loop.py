"""Peer: a plain aiokafka loop. One batch of one partition at a time, offsets committed after it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.contenders.job import Job, Task


async def send(producer: Any, topic: str, records: Sequence[tuple[bytes, bytes]]) -> None:
    """Send and wait for all acknowledgements."""
    await asyncio.gather(*[await producer.send(topic, value, key=key) for key, value in records])


async def main() -> None:
    """Run until killed."""
    task = Task.from_environment()
    job = Job(task)
    client = redis.asyncio.from_url(task.redis_url, protocol=2)
    consumer = AIOKafkaConsumer(
        task.topic,
        bootstrap_servers=task.bootstrap,
        group_id=task.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap, linger_ms=5, max_batch_size=262_144, acks="all"
    )
    await consumer.start()
    await producer.start()
    while True:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=8 * task.batch)
        for tp, records in fetched.items():
            for at in range(0, len(records), task.batch):
                part = records[at : at + task.batch]
                lists = await job.run(client, [record.value for record in part])
                await send(producer, task.out_topic, lists)
                await consumer.commit({tp: part[-1].offset + 1})
                job.done(len(part))


if __name__ == "__main__":
    asyncio.run(main())
