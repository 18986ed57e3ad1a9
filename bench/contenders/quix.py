"""Peer: Quix Streams with a batching sink, written at every checkpoint."""

import redis
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from bench.contenders.job import Job, Task


class Lists(BatchingSink):  # type: ignore[misc]  # Quix is not installed here
    """Does the job for what a checkpoint gathered of one partition."""

    def __init__(self, app: Application, task: Task) -> None:
        super().__init__()
        self._job = Job(task)
        self._redis = redis.from_url(task.redis_url, protocol=2)
        self._producer = app.get_producer()
        self._topic = task.out_topic

    def write(self, batch: SinkBatch) -> None:
        """Redis first, then the topic; Quix commits the offsets after it."""
        lists = self._job.run_sync(self._redis, [item.value for item in batch])
        for key, value in lists:
            self._producer.produce(topic=self._topic, key=key, value=value)
        self._producer.flush()
        self._job.done(batch.size)


def main() -> None:
    """Run until killed."""
    task = Task.from_environment()
    app = Application(
        broker_address=task.bootstrap,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_every=task.batch,  # as many events at a time as all contenders
        commit_interval=1.0,
        auto_create_topics=False,
    )
    topic = app.topic(task.topic, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(topic).sink(Lists(app, task))
    app.run()


if __name__ == "__main__":
    main()
