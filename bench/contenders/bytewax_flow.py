"""Peer: bytewax. A batch of the source through the job; no recovery store, so less than ours."""

import redis
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

from bench.contenders.job import Job, Task

PARTITIONS = 8

task = Task.from_environment()
job = Job(task)
client = redis.from_url(task.redis_url, protocol=2)


def lists(
    batch: list[KafkaSourceMessage[bytes, bytes]],
) -> list[KafkaSinkMessage[bytes, bytes]]:
    """Do one batch."""
    records = job.run_sync(client, [message.value for message in batch])
    job.done(len(batch))
    return [KafkaSinkMessage(key, value) for key, value in records]


def flow() -> Dataflow:
    """The clickstream to the lists."""
    made = Dataflow("bench")
    # bytewax joins what it reads of all partitions at a time, so that this makes one batch.
    source = KafkaSource([task.bootstrap], [task.topic], batch_size=task.batch // PARTITIONS)
    stream = op.input("events", made, source)
    out = op.flat_map_batch("job", stream, lists)
    op.output("lists", out, KafkaSink([task.bootstrap], task.out_topic))
    return made


if __name__ == "__main__":
    run_main(flow())
