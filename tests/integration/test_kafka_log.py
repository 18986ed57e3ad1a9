"""Producing to Kafka, and creating, checking and reading topics, on the session's broker."""

import asyncio
import os
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import InvalidTimestampError

from stream_app.adapters.kafka import KafkaLog, Security, bootstrap_servers
from stream_app.adapters.topics import TopicSpec, consume, ensure_topics
from stream_app.embedded import TansuBroker, free_port
from stream_app.errors import ConfigurationError, LogUnavailable
from stream_app.ports import Record
from tests.conftest import UniqueName
from tests.servers import Kafka


async def test_records_are_read_back_in_order_with_key_headers_and_time(
    kafka: Kafka, unique: UniqueName
) -> None:
    brokers, topic = [kafka.bootstrap], unique("log")
    await ensure_topics([TopicSpec(topic, 2)], brokers=brokers)
    sent = [
        Record(b"k%d" % n, os.urandom(200), (("source", b"%d" % n),), timestamp_ms=1_000 + n)
        for n in range(5_000)
    ]
    async with KafkaLog(brokers, batch_bytes_max=65_536) as kafka_log:
        await kafka_log.send(topic, 1, sent)
        await kafka_log.send(topic, 0, [Record(b"tombstone", None)])
        await kafka_log.send(topic, 0, [])
    stored = [record async for record in consume(topic, brokers=brokers)]
    read = [record for record in stored if record.partition == 1]
    assert [record.offset for record in read] == list(range(5_000))
    assert [
        Record(record.key, record.value, record.headers, record.timestamp_ms) for record in read
    ] == sent
    (tombstone,) = (record for record in stored if record.partition == 0)
    assert (tombstone.key, tombstone.value) == (b"tombstone", None)


async def test_an_empty_topic_reads_as_nothing(kafka: Kafka, unique: UniqueName) -> None:
    topic = unique("empty")
    await ensure_topics([TopicSpec(topic, 3)], brokers=[kafka.bootstrap])
    assert [record async for record in consume(topic, brokers=[kafka.bootstrap])] == []


async def test_a_record_above_the_limit_names_the_setting(kafka: Kafka, unique: UniqueName) -> None:
    topic = unique("large")
    await ensure_topics([TopicSpec(topic, 1)], brokers=[kafka.bootstrap])
    async with KafkaLog([kafka.bootstrap]) as kafka_log:
        with pytest.raises(ConfigurationError, match="raise request_bytes_max"):
            await kafka_log.send(topic, 0, [Record(b"key", bytes(1_100_000))])
        await kafka_log.send(topic, 0, [Record(b"key", bytes(1_000_000))])
    assert len([record async for record in consume(topic, brokers=[kafka.bootstrap])]) == 1


async def test_ensuring_topics_twice_changes_nothing_and_reports_differences(
    kafka: Kafka, unique: UniqueName
) -> None:
    brokers, topic = [kafka.bootstrap], unique("ensured")
    config = {"cleanup.policy": "compact", "retention.ms": "3600000", "max.message.bytes": "99999"}
    (first,) = await ensure_topics([TopicSpec(topic, 2, config=config)], brokers=brokers)
    assert first.created
    (again,) = await ensure_topics([TopicSpec(topic, 2, config=config)], brokers=brokers)
    assert (again.created, again.partitions, again.differences) == (False, 2, {})
    other = TopicSpec(topic, 2, config=config | {"retention.ms": "5"})
    (changed,) = await ensure_topics([other], brokers=brokers)
    assert changed.differences == {"retention.ms": ("5", "3600000")}


async def test_other_partition_counts_and_cleanup_policies_are_refused(
    kafka: Kafka, unique: UniqueName
) -> None:
    brokers, topic = [kafka.bootstrap], unique("refused")
    await ensure_topics([TopicSpec(topic, 2)], brokers=brokers)
    with pytest.raises(ConfigurationError, match="has 2 partitions, 4 are configured"):
        await ensure_topics([TopicSpec(topic, 4, setting="PARTITIONS")], brokers=brokers)
    compacted = TopicSpec(topic, 2, config={"cleanup.policy": "compact"})
    with pytest.raises(ConfigurationError, match=r"cleanup\.policy=delete, but it must be compact"):
        await ensure_topics([compacted], brokers=brokers)


async def test_the_embedded_broker_takes_and_gives_records_too(
    tansu: TansuBroker, unique: UniqueName
) -> None:
    brokers, topic = [tansu.bootstrap], unique("embedded")
    await ensure_topics([TopicSpec(topic, 2)], brokers=brokers)
    (again,) = await ensure_topics([TopicSpec(topic, 2)], brokers=brokers)
    assert not again.created
    async with KafkaLog(brokers) as kafka_log:
        await kafka_log.send(topic, 1, [Record(b"key", b"%d" % n) for n in range(2_000)])
    read = [record.value async for record in consume(topic, brokers=brokers)]
    assert read == [b"%d" % n for n in range(2_000)]


async def test_a_broker_that_is_not_there_is_log_unavailable() -> None:
    brokers = [f"127.0.0.1:{free_port()}"]
    with pytest.raises(LogUnavailable, match="cannot connect"):
        await KafkaLog(brokers).send("topic", 0, [Record(b"key", b"value")])
    with pytest.raises(LogUnavailable, match="cannot create or check topics"):
        await ensure_topics([TopicSpec("topic", 1)], brokers=brokers)


def test_addresses_and_credentials_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'broker' is not host:port"):
        bootstrap_servers(["broker"])
    with pytest.raises(ConfigurationError, match="needs a username"):
        Security(protocol="SASL_PLAINTEXT")
    with pytest.raises(ConfigurationError, match="needs an ssl_context"):
        Security(protocol="SSL")
    secured = Security(protocol="SASL_PLAINTEXT", username="shop", password="secret")
    assert "secret" not in repr(secured)


async def test_concurrent_sends_keep_each_callers_order_and_miss_nothing(
    kafka: Kafka, unique: UniqueName
) -> None:
    topic = unique("concurrent")
    await ensure_topics([TopicSpec(topic, 1)], brokers=[kafka.bootstrap])
    async with KafkaLog([kafka.bootstrap]) as log:

        async def caller(name: int) -> None:
            for k in range(20):
                await log.send(topic, 0, [Record(None, b"%d:%d" % (name, k))])

        await asyncio.gather(*(caller(name) for name in range(8)))
    values = [(record.value or b"") async for record in consume(topic, brokers=[kafka.bootstrap])]
    assert len(values) == 160
    for name in range(8):
        mine = [value for value in values if value.startswith(b"%d:" % name)]
        assert mine == [b"%d:%d" % (name, k) for k in range(20)]


async def test_a_send_that_waits_for_metadata_outlives_the_failure_of_another(
    kafka: Kafka, unique: UniqueName, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, refused = unique("waiting"), unique("refused")
    send_batch, waits = aiokafka.AIOKafkaProducer.send_batch, asyncio.Event()

    async def send_or_refuse(self: Any, batch: Any, to: str, *, partition: int) -> Any:
        if to == refused:
            raise InvalidTimestampError
        waits.set()
        return await send_batch(self, batch, to, partition=partition)

    monkeypatch.setattr(aiokafka.AIOKafkaProducer, "send_batch", send_or_refuse)
    async with KafkaLog([kafka.bootstrap]) as kafka_log, asyncio.timeout(30):
        await kafka_log.start()
        await ensure_topics([TopicSpec(topic, 1)], brokers=[kafka.bootstrap])  # not known to it yet
        sending = asyncio.create_task(kafka_log.send(topic, 0, [Record(b"k", b"v")]))
        await waits.wait()
        with pytest.raises(LogUnavailable, match="set this machine's clock"):
            await kafka_log.send(refused, 0, [Record(b"k", b"v")])
        await sending
        await kafka_log.send(topic, 0, [Record(b"k", b"w")])
    stored = [record.value async for record in consume(topic, brokers=[kafka.bootstrap])]
    assert stored == [b"v", b"w"]


async def test_a_failed_group_fails_for_every_caller(unique: UniqueName) -> None:
    log = KafkaLog([f"127.0.0.1:{free_port()}"], request_timeout_ms=500)
    topic = unique("nowhere")
    sends = [log.send(topic, 0, [Record(None, b"x")]) for _ in range(3)]
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes), outcomes
    await log.stop()
