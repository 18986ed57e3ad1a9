"""Catalog and users on a real broker: read whole, followed, and bad records set aside once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_app.adapters import broadcast
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.memory import MemoryPublic, MemoryStore
from stream_app.adapters.topics import consume
from stream_app.broadcasts import Broadcasts
from stream_app.commands.load import load_items
from stream_app.composition import Stages, compose
from stream_app.core.audience import EMAIL
from stream_app.hashing import stable_hash
from stream_app.ports import Record
from stream_app.settings import Settings, load_settings
from stream_app.worker import security
from tests.conftest import NewTopicFactory, UniqueName
from tests.servers import Kafka, create_topic

COMPACT = {"cleanup.policy": "compact"}


def ids(*names: str) -> np.ndarray:
    return np.array([stable_hash(name) for name in names], np.uint64)


def record(item_id: str, **fields: object) -> Record:
    return Record(item_id.encode(), orjson.dumps({"item_id": item_id, **fields}))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come; only a hang ends this otherwise."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in other processes
            await asyncio.sleep(0.02)


class Shop:
    """Topics of one test, and workers' views of them."""

    def __init__(self, settings: Settings, log: KafkaLog) -> None:
        self.settings = settings
        self.log = log
        self.public = MemoryPublic()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[tuple[Stages, Broadcasts]]:
        """A worker's stages that have read the topics and follow them."""
        stages = compose(
            self.settings,
            store=MemoryStore(),
            public=self.public,
            log=self.log,
            clock=lambda: 1.7e9,
        )
        broadcasts = Broadcasts(self.settings, stages, security(self.settings), stages.followers)
        await broadcasts.load()
        task = asyncio.create_task(broadcasts.follow(MemoryStore()))
        try:
            yield stages, broadcasts
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await broadcasts.close()


@asynccontextmanager
async def shop(kafka: Kafka, new_topic: NewTopicFactory, unique: UniqueName) -> AsyncIterator[Shop]:
    settings = load_settings(
        {
            "STREAM_APP_KAFKA_URL": f"kafka://{kafka.bootstrap}",
            "STREAM_APP_CATALOG_TOPIC": await new_topic("catalog", partitions=3, configs=COMPACT),
            "STREAM_APP_USERS_TOPIC": unique("users"),
            "STREAM_APP_DEAD_LETTER_TOPIC": await new_topic("dlq", partitions=4),
        }
    )
    async with KafkaLog([kafka.bootstrap]) as log:
        yield Shop(settings, log)


async def test_a_worker_knows_the_whole_catalog_before_it_starts_and_follows_it(
    kafka: Kafka,
    new_topic: NewTopicFactory,
    unique: UniqueName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broadcast, "MISSING_WAIT_S", 0.2)
    async with shop(kafka, new_topic, unique) as it:
        topic = it.settings.catalog_topic
        for partition in range(2):  # the third one stays empty
            names = [f"item-{partition}-{k}" for k in range(1_200)]
            await it.log.send(topic, partition, [record(name, price=1.0) for name in names])
        await it.log.send(topic, 0, [Record(b"item-0-7", None)])
        async with it.worker() as (stages, broadcasts):
            catalog = stages.catalog
            assert len(catalog) == 2_399
            assert catalog.listed(ids("item-0-6", "item-0-7")).tolist() == [True, False]
            await it.log.send(topic, 1, [record("item-1-3", stock=0)])
            await until(lambda: not catalog.listed(ids("item-1-3"))[0])
            await it.log.send(topic, 1, [record("item-1-3", stock=4)])
            await until(lambda: bool(catalog.listed(ids("item-1-3"))[0]))
            assert broadcasts.readers[topic].lag() == 0
            # The users topic did not exist; once it does, it is read as well.
            await create_topic(kafka.bootstrap, it.settings.users_topic, configs=COMPACT)
            said = orjson.dumps({"consent": {"email": False}, "region": "de"})
            await it.log.send(it.settings.users_topic, 0, [Record(b"anna", said)])
            await until(lambda: len(stages.audience) == 1)
            assert not stages.audience.may(ids("anna"), EMAIL)[0]


async def test_a_bad_record_is_dead_lettered_once_whoever_reads_it(
    kafka: Kafka, new_topic: NewTopicFactory, unique: UniqueName
) -> None:
    async with shop(kafka, new_topic, unique) as it:
        await it.log.send(
            it.settings.catalog_topic,
            2,
            [
                record("good"),
                Record(b"a", b"{nonsense"),
                record("b", price="9.99 EUR"),
                record("c", price=-1),
                Record(b"d", orjson.dumps({"item_id": "e"})),
            ],
        )
        for leads in (False, True, True):
            async with it.worker() as (stages, broadcasts):
                assert len(stages.catalog) == 1
                if leads:
                    await stages.learn.assign(0)
                await broadcasts.dead_letter()
        dead = [
            dict(found.headers)["reason"].decode()
            async for found in consume(it.settings.dead_letter_topic, brokers=[kafka.bootstrap])
        ]
        reasons = ["malformed_json", "wrong_type", "bad_number", "key_mismatch"]
        assert dead == reasons
        assert stages.followers[0].rejected.total() == len(reasons)


async def test_a_file_replaces_the_catalog_and_tells_which_rows_are_bad(
    kafka: Kafka, new_topic: NewTopicFactory, unique: UniqueName, tmp_path: Path
) -> None:
    async with shop(kafka, new_topic, unique) as it:
        first, second = tmp_path / "first.csv", tmp_path / "second.jsonl"
        first.write_text("item_id,price,sole\n1,9.5,rubber\n2,cheap,\n3,1,\n4,2,\n")
        second.write_text('{"item_id":3,"stock":0}\n{"item_id":5}\n')
        sent = await load_items(it.settings, first, replace=False)
        assert sent == {"sent": 3, "bad": 1, "deleted": 0}
        sent = await load_items(it.settings, second, replace=True)
        assert sent == {"sent": 2, "bad": 0, "deleted": 2}
        async with it.worker() as (stages, _):
            assert len(stages.catalog) == 2
            assert stages.catalog.listed(ids("1", "3", "5")).tolist() == [False, False, True]
