"""A client whose partition has no leader, and whose broker is gone, rests between its questions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiokafka.client
import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from stream_app.adapters import fetching
from stream_app.adapters.following import followed
from stream_app.adapters.kafka import KafkaLog, Security
from stream_app.adapters.limits import Limits
from stream_app.adapters.pacing import APART_S
from stream_app.adapters.topics import TopicSpec, ensure_topics
from stream_app.embedded.tansu import TansuBroker, tansu_broker
from stream_app.ports import Record

TOPIC = "paced"
WATCHED_S = 2.0


@asynccontextmanager
async def follower(broker: TansuBroker) -> AsyncIterator[None]:
    """Reads the topic on and on, outside any group."""
    caught_up = asyncio.Event()

    async def read() -> None:
        async for _ in followed([TOPIC], brokers=[broker.bootstrap], records_max=10):
            caught_up.set()

    reading = asyncio.create_task(read())
    await caught_up.wait()
    yield
    reading.cancel()
    await asyncio.wait([reading])


@asynccontextmanager
async def member(broker: TansuBroker) -> AsyncIterator[None]:
    """Fetches a partition, as a worker does."""
    consumer = fetching.new_consumer(
        "group",
        brokers=[broker.bootstrap],
        security=Security(),
        limits=Limits(),
        owners={(TOPIC, 0): "owner"},
    )
    await consumer.start()
    consumer.assign([TopicPartition(TOPIC, 0)])
    await fetching.sought(consumer, {(TOPIC, 0): None})
    yield
    await consumer.stop()


@asynccontextmanager
async def sender(broker: TansuBroker) -> AsyncIterator[None]:
    """Has a record that waits for the partition's leader."""
    async with KafkaLog([broker.bootstrap], request_timeout_ms=5_000) as log:
        await log.send(TOPIC, 0, [Record(None, b"first")])
        waiting = asyncio.create_task(log.send(TOPIC, 0, [Record(None, b"second")]))
        yield
        waiting.cancel()
        await asyncio.wait([waiting])


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[AIOKafkaClient]:
    """All of aiokafka's clients that the test makes."""
    made: list[AIOKafkaClient] = []
    init = AIOKafkaClient.__init__

    def noted(self: AIOKafkaClient, *args: Any, **settings: Any) -> None:
        made.append(self)
        init(self, *args, **settings)

    monkeypatch.setattr(AIOKafkaClient, "__init__", noted)
    return made


def without_leader(client: AIOKafkaClient) -> None:
    """What a client knows after the broker said that the topic's partition has no leader."""
    partitions = client.cluster._partitions.get(TOPIC, {})
    for number, known in partitions.items():
        partitions[number] = known._replace(leader=-1)


@pytest.mark.parametrize("kind", [follower, member, sender])
async def test_rests_between_its_questions(
    kind: Callable[[TansuBroker], AbstractAsyncContextManager[None]],
    clients: list[AIOKafkaClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = 0
    connect = aiokafka.client.create_conn

    async def counted(*args: Any, **settings: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return await connect(*args, **settings)

    monkeypatch.setattr(aiokafka.client, "create_conn", counted)
    with tansu_broker() as broker:
        await ensure_topics([TopicSpec(TOPIC, 1)], brokers=[broker.bootstrap])
        clients.clear()
        async with kind(broker):
            broker.kill()
            for client in clients:
                without_leader(client)
            attempts = 0
            await asyncio.sleep(WATCHED_S)
            assert 0 < attempts <= 4 * WATCHED_S / APART_S  # fetches and heartbeats connect, too
