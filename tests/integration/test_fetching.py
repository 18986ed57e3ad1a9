"""What a consumer gathers from a broker while nobody asks for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stream_app.adapters import fetching
from stream_app.adapters.kafka import KafkaLog, Security
from stream_app.adapters.lanes import Partition
from stream_app.adapters.limits import Limits
from stream_app.adapters.topics import TopicSpec, ensure_topics
from stream_app.ports import RawBatch, Record
from tests.conftest import UniqueName
from tests.servers import Kafka

DEADLINE_S = 30.0  # only to end a test that hangs


class Fetching:
    """A consumer of a topic with two partitions, placed at their beginnings."""

    def __init__(self, kafka: Kafka, topic: str, records_max: int) -> None:
        self.topic = topic
        self.owners: dict[Partition, str] = {(topic, 0): "zero", (topic, 1): "one"}
        self.log = KafkaLog([kafka.bootstrap])
        self.consumer = fetching.new_consumer(
            f"group-{topic}",
            brokers=[kafka.bootstrap],
            security=Security(),
            limits=Limits(batch_records_max=records_max),
            owners=self.owners,
        )

    async def place(self) -> None:
        """Be assigned both partitions and begin at their first records."""
        self.consumer.subscribe([self.topic])
        await self.consumer.start()
        await until(lambda: len(self.consumer.assignment()) == 2)
        await fetching.sought(self.consumer, dict.fromkeys(self.owners))

    async def send(self, partition: int, first: int, end: int) -> None:
        """Records ``first`` … ``end`` - 1, in one request."""
        records = [Record(None, b"%d" % n) for n in range(first, end)]
        await self.log.send(self.topic, partition, records)

    async def gathered(self, owner: str, n: int) -> None:
        """Wait until ``n`` records of a partition's owner have come, asking for none of them."""
        held = self.consumer._gathered
        await until(
            lambda: sum(len(b) for who, bs in held_of(held) if who == owner for b in bs) >= n
        )

    async def taken(self) -> list[tuple[Any, list[RawBatch]]]:
        """What is handed over now."""
        return await fetching.fetched(self.consumer, timeout_s=5.0, beyond_since_s={})


def held_of(held: dict[Any, Any]) -> list[tuple[str, Sequence[RawBatch]]]:
    """Owners with their batches."""
    return list(held.values())


async def until(met: Callable[[], bool]) -> None:
    """Wait for it."""
    async with asyncio.timeout(DEADLINE_S):
        while not met():  # noqa: ASYNC110 - of a library
            await asyncio.sleep(0.01)


@asynccontextmanager
async def started(kafka: Kafka, topic: str, records_max: int = 1_000) -> AsyncIterator[Fetching]:
    """See :class:`Fetching`."""
    await ensure_topics([TopicSpec(topic, 2)], brokers=[kafka.bootstrap])
    it = Fetching(kafka, topic, records_max)
    try:
        await it.place()
        yield it
    finally:
        await it.consumer.stop()
        await it.log.stop()


def numbers(batch: RawBatch) -> list[int]:
    """What the records say."""
    return [int(value or b"") for value in batch.values]


async def test_what_comes_in_several_answers_is_handed_over_at_once_and_in_order(
    kafka: Kafka, unique: UniqueName
) -> None:
    async with started(kafka, unique("gather")) as it:
        for first in range(0, 50, 10):
            await it.send(0, first, first + 10)
            await it.gathered("zero", first + 10)
        await it.send(1, 0, 3)
        await it.gathered("one", 3)
        taken = dict(await it.taken())
        (zero,), (one,) = taken["zero"], taken["one"]
        assert numbers(zero) == list(range(50))
        assert (zero.offsets, zero.next_offset) == (list(range(50)), 50)
        assert numbers(one) == [0, 1, 2]
        assert await fetching.fetched(it.consumer, timeout_s=0.1, beyond_since_s={}) == []


async def test_no_more_is_gathered_than_a_batch_and_an_answer_and_nothing_is_lost(
    kafka: Kafka, unique: UniqueName
) -> None:
    async with started(kafka, unique("bounded"), records_max=20) as it:
        for first in range(0, 120, 15):
            await it.send(0, first, first + 15)
            await asyncio.sleep(0.02)  # answers of their own, most of them
        await it.gathered("zero", 20)
        found: list[int] = []
        while len(found) < 120:
            for owner, batches in await it.taken():
                assert owner == "zero"
                assert all(len(batch) <= 20 for batch in batches)
                assert sum(map(len, batches)) < 20 + 120
                found += [n for batch in batches for n in numbers(batch)]
        assert found == list(range(120))


async def test_a_partition_without_an_owner_waits_and_others_go_on(
    kafka: Kafka, unique: UniqueName
) -> None:
    async with started(kafka, unique("paused")) as it:
        del it.owners[it.topic, 0]
        await it.send(0, 0, 5)
        await it.send(1, 0, 5)
        await it.gathered("one", 5)
        await it.send(1, 5, 9)
        await it.gathered("one", 9)
        ((owner, (batch,)),) = await it.taken()
        assert (owner, numbers(batch)) == ("one", list(range(9)))
        it.owners[it.topic, 0] = "zero"
        fetching.wake(it.consumer)
        ((owner, (batch,)),) = await it.taken()
        assert (owner, numbers(batch)) == ("zero", list(range(5)))


async def test_what_was_gathered_before_a_rewind_does_not_come_to_the_new_owner(
    kafka: Kafka, unique: UniqueName
) -> None:
    async with started(kafka, unique("rewound")) as it:
        await it.send(0, 0, 10)
        await it.gathered("zero", 10)
        del it.owners[it.topic, 0]
        await fetching.sought(it.consumer, {(it.topic, 0): 4})
        it.owners[it.topic, 0] = "zero again"
        await it.gathered("zero again", 6)
        ((owner, (batch,)),) = await it.taken()
        assert (owner, numbers(batch)) == ("zero again", list(range(4, 10)))


async def test_records_that_cannot_be_read_are_raised_where_they_are_asked_for(
    kafka: Kafka, unique: UniqueName, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("no records")

    async with started(kafka, unique("broken")) as it:
        monkeypatch.setattr(fetching, "_batches", broken)
        await it.send(0, 0, 1)
        with pytest.raises(ValueError, match="no records"):
            await it.taken()
