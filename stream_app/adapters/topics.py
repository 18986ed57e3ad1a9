"""Topics of the project: creating and checking them, and reading one from end to end.

Called by the ``topics`` and ``dlq`` commands and by tests. Works on Apache Kafka and, where a
broker cannot describe configurations, on less.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from stream_app.adapters.cancelling import uncancelled
from stream_app.adapters.kafka import Security, bootstrap_servers, translated
from stream_app.errors import ConfigurationError, LogUnavailable
from stream_app.ports import Headers, RawBatch

log = logging.getLogger(__name__)

POLL_MS = 200


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as the project wants it.

    ``config`` holds Kafka's own names: ``cleanup.policy``, ``retention.ms``, ``max.message.bytes``…
    ``replication`` −1 takes the broker's default. ``setting`` is what ``partitions`` comes from; of
    a topic without one nothing depends on their number, and one that exists may have another.
    """

    name: str
    partitions: int
    replication: int = -1
    config: Mapping[str, str] = field(default_factory=dict)
    setting: str = ""

    def check(self, found: int) -> None:
        """Raise ``ConfigurationError`` unless the topic has as many partitions as configured."""
        if self.setting and found != self.partitions:
            raise ConfigurationError(
                f"topic {self.name} has {found} partitions, {self.partitions} are configured;"
                f" state is kept by partition, so set {self.setting} to {found}, or use a new"
                " topic name"
            )


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What :func:`ensure_topics` found: ``differences`` maps a setting to (wanted, found)."""

    name: str
    created: bool
    partitions: int
    differences: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as it lies in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


async def ensure_topics(
    specs: Sequence[TopicSpec],
    *,
    brokers: Sequence[str],
    security: Security | None = None,
    timeout_ms: int = 30_000,
) -> list[TopicReport]:
    """Create what is missing and check what is there; doing it again changes nothing.

    A different retention or size limit is reported (operators may have their reasons). A different
    partition count or cleanup policy raises ``ConfigurationError``: keys would go to other
    partitions than their state, or events would be compacted away. Raises ``LogUnavailable`` when
    the brokers cannot be reached.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers(brokers),
        request_timeout_ms=timeout_ms,
        **(security or Security()).client_arguments(),
    )
    try:
        await admin.start()
        created = await _create(admin, specs)
        found = await _partition_counts(admin, specs, timeout_ms=timeout_ms)
        return [
            await _checked(admin, spec, created=spec.name in created, partitions=found[spec.name])
            for spec in specs
        ]
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, f"cannot create or check topics at {list(brokers)}") from exc
    finally:
        await uncancelled(admin.close())


async def check_partitions(
    specs: Sequence[TopicSpec],
    *,
    brokers: Sequence[str],
    security: Security | None = None,
    timeout_ms: int = 10_000,
) -> None:
    """Check the partition counts only, which needs no more than the right to describe the topics.

    Raises ``ConfigurationError`` for a wrong one, ``LogUnavailable`` when no broker shows them.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers(brokers),
        request_timeout_ms=timeout_ms,
        **(security or Security()).client_arguments(),
    )
    try:
        await admin.start()
        found = await _partition_counts(admin, specs, timeout_ms=timeout_ms)
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, f"cannot describe the topics at {list(brokers)}") from exc
    finally:
        await uncancelled(admin.close())
    for spec in specs:
        spec.check(found[spec.name])


async def check_there(
    names: Sequence[str],
    *,
    setting: str,
    brokers: Sequence[str],
    security: Security | None = None,
    timeout_ms: int = 10_000,
) -> None:
    """Raise ``ConfigurationError`` when a topic that ``setting`` names is not there.

    It asks for all topics: brokers may make one that is asked for by its name.
    """
    if not names:
        return
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers(brokers),
        request_timeout_ms=timeout_ms,
        **(security or Security()).client_arguments(),
    )
    try:
        await admin.start()
        missing = sorted(set(names) - set(await admin.list_topics()))
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, f"cannot list the topics at {list(brokers)}") from exc
    finally:
        await uncancelled(admin.close())
    if missing:
        raise ConfigurationError(
            f"{setting}: no topic {', '.join(missing)} is there, or may be read by this principal;"
            " it is not ours to make: correct the name, grant Read, or let its owner create it"
        )


async def committed_offset(
    group: str,
    topic: str,
    partition: int,
    *,
    brokers: Sequence[str],
    security: Security | None = None,
    timeout_ms: int = 10_000,
) -> int | None:
    """What ``group`` has committed of a partition, ``None`` where it has not."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers(brokers),
        request_timeout_ms=timeout_ms,
        **(security or Security()).client_arguments(),
    )
    place = aiokafka.TopicPartition(topic, partition)
    try:
        await admin.start()
        found = await admin.list_consumer_group_offsets(group, partitions=[place])
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, f"cannot read the offsets of group {group}") from exc
    finally:
        await uncancelled(admin.close())
    offset: int = found[place].offset if place in found else -1
    return offset if offset >= 0 else None


async def _create(admin: Any, specs: Sequence[TopicSpec]) -> set[str]:
    """Return the names that did not exist before."""
    existing = set(await admin.list_topics())
    missing = [spec for spec in specs if spec.name not in existing]
    if not missing:
        return set()
    response = await admin.create_topics([_new_topic(spec) for spec in missing])
    created = set()
    for name, code, *detail in response.topic_errors:
        kind = for_code(code)
        if code == 0:
            created.add(name)
        elif kind is not TopicAlreadyExistsError:  # another process may have been faster
            message = detail[0] if detail and detail[0] else kind.__name__
            raise ConfigurationError(f"Kafka refuses to create topic {name}: {message}")
    return created


def _new_topic(spec: TopicSpec) -> Any:
    # aiokafka takes −1 (the broker's default) only with an assignment; an empty one is none.
    assignment: dict[int, list[int]] | None = {} if spec.replication == -1 else None
    return NewTopic(
        spec.name, spec.partitions, spec.replication, assignment, topic_configs=dict(spec.config)
    )


async def _partition_counts(
    admin: Any, specs: Sequence[TopicSpec], *, timeout_ms: int
) -> dict[str, int]:
    """Partition counts by name; a new topic needs a moment until every broker knows it."""
    names = [spec.name for spec in specs]
    deadline_s = asyncio.get_running_loop().time() + timeout_ms / 1000
    while True:
        described = await admin.describe_topics(names)
        counts = {
            topic["topic"]: len(topic["partitions"])
            for topic in described
            if topic["error_code"] == 0 and topic["partitions"]
        }
        missing = [name for name in names if name not in counts]
        if not missing:
            return counts
        if asyncio.get_running_loop().time() > deadline_s:
            raise LogUnavailable(f"no broker shows topics {missing}; the topics command makes them")
        await asyncio.sleep(0.1)


async def _checked(admin: Any, spec: TopicSpec, *, created: bool, partitions: int) -> TopicReport:
    spec.check(partitions)
    differences: dict[str, tuple[str, str]] = {}
    if not created:
        stored = await _stored_config(admin, spec.name)
        differences = {
            key: (wanted, stored[key])
            for key, wanted in spec.config.items()
            if key in stored and stored[key] != wanted
        }
    if "cleanup.policy" in differences:
        wanted, is_set = differences["cleanup.policy"]
        raise ConfigurationError(
            f"topic {spec.name} has cleanup.policy={is_set}, but it must be {wanted}: "
            f"change it with kafka-configs --alter --add-config cleanup.policy={wanted}"
        )
    return TopicReport(spec.name, created, partitions, differences)


async def _stored_config(admin: Any, name: str) -> dict[str, str]:
    """The topic's settings; empty where the broker cannot tell (Tansu answers in part)."""
    try:
        responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    except (KafkaError, TimeoutError) as exc:
        log.warning("the broker does not describe topic %s (%s); settings not checked", name, exc)
        return {}
    settings: dict[str, str] = {}
    for response in responses:
        for code, _message, _type, _name, entries in response.resources:
            if code == 0:
                settings |= {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return settings


async def consume(
    topic: str,
    *,
    brokers: Sequence[str],
    security: Security | None = None,
    timeout_ms: int = 30_000,
) -> AsyncIterator[StoredRecord]:
    """Yield the records of all partitions from the beginning to where the log ends now.

    "Now" is the high watermark that the first fetch of each partition reports; it commits nothing
    and joins no group. Raises ``LogUnavailable`` when nothing moves for ``timeout_ms``, and
    ``ConfigurationError`` when the topic does not exist.
    """
    consumer = aiokafka.AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers(brokers),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=POLL_MS,
        request_timeout_ms=timeout_ms,
        **(security or Security()).client_arguments(),
    )
    try:
        await consumer.start()
        assigned = consumer.assignment()
        await consumer.seek_to_beginning(*assigned)
        ends: dict[Any, int] = {}
        clock = asyncio.get_running_loop().time
        moved_s = clock()
        while len(ends) < len(assigned) or any(
            [await consumer.position(tp) < end for tp, end in ends.items()]
        ):
            fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=10_000)
            for tp in assigned - ends.keys():
                end = end_offset(consumer, tp)
                if end is not None:
                    ends[tp] = end
                    moved_s = clock()
            for tp, records in fetched.items():
                moved_s = clock()
                for record in records:
                    if record.offset < ends[tp]:
                        yield _stored(record)
            if clock() - moved_s > timeout_ms / 1000:
                raise LogUnavailable(f"reading {topic} made no progress for {timeout_ms} ms")
    except UnknownTopicOrPartitionError as exc:
        raise ConfigurationError(
            f"topic {topic} does not exist; create it with the topics command"
        ) from exc
    except (KafkaError, TimeoutError, OSError) as exc:
        raise translated(exc, f"cannot read topic {topic} at {list(brokers)}") from exc
    finally:
        await uncancelled(consumer.stop())


def end_offset(consumer: Any, tp: Any) -> int | None:
    """Where committed records end: before a transaction still open, else the high watermark."""
    highwater: int | None = consumer.highwater(tp)
    stable: int | None = consumer.last_stable_offset(tp)
    if highwater is None or stable is None or stable < 0:
        return highwater
    return min(highwater, stable)


def raw_batch(records: Sequence[Any]) -> RawBatch:
    """Records of aiokafka, of one partition and in order, for a stage."""
    return RawBatch(
        records[0].topic,
        records[0].partition,
        records[-1].offset + 1,
        [record.offset for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.timestamp for record in records],
        [tuple(record.headers) for record in records],
    )


def _stored(record: Any) -> StoredRecord:
    return StoredRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )
