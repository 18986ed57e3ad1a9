"""Peer: FastStream on confluent-kafka with a batch subscriber."""

import asyncio

import redis.asyncio
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage, KafkaResponse

from bench.contenders.job import Job, Task

task = Task.from_environment()
job = Job(task)
client = redis.asyncio.from_url(task.redis_url, protocol=2)
broker = KafkaBroker(task.bootstrap)


async def raw(message: KafkaMessage) -> list[bytes]:
    """Hand the values over as they are: the job parses them."""
    return list(message.body)


@broker.subscriber(  # type: ignore[untyped-decorator]  # not installed here
    task.topic,
    group_id=task.group,
    batch=True,
    max_records=task.batch,
    polling_interval=0.1,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.ACK,
    decoder=raw,
)
async def handle(values: list[bytes]) -> None:
    """Do one batch; FastStream commits after it."""
    lists = await job.run(client, values)
    records = [KafkaResponse(value, key=key) for key, value in lists]
    if records:
        await broker.publish_batch(*records, topic=task.out_topic)
    job.done(len(values))


if __name__ == "__main__":
    asyncio.run(FastStream(broker).run())
