"""Kafka as a log to produce to: the producer, and how every client of ours is secured.

Called by the publish step and by the tools; consuming in a group is :mod:`.transport`'s, topics and
whole-topic reads are :mod:`.topics`'. Errors of aiokafka become ours at this edge.
"""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiokafka
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownError,
    UnsupportedSaslMechanismError,
)

from stream_app.adapters.cancelling import uncancelled
from stream_app.adapters.pacing import paced
from stream_app.errors import ConfigurationError, LogUnavailable
from stream_app.ports import Record

log = logging.getLogger(__name__)

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

# What no retry can heal: the worker stops and the operator reads why.
HOPELESS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

# A request carries topic, partition and the batch's header besides the records.
REQUEST_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Security:
    """How to reach the brokers: the same for consumer, producer and tools.

    Raises ``ConfigurationError`` when the parts do not fit together.
    """

    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigurationError(f"security protocol {self.protocol!r} is not in {PROTOCOLS}")
        if self.protocol.startswith("SASL"):
            if self.mechanism not in MECHANISMS:
                raise ConfigurationError(
                    f"SASL mechanism {self.mechanism!r} is not in {MECHANISMS}"
                )
            if self.username is None or self.password is None:
                raise ConfigurationError(
                    f"security protocol {self.protocol} needs a username and a password"
                )
        if self.protocol.endswith("SSL") and self.ssl_context is None:
            raise ConfigurationError(f"security protocol {self.protocol} needs an ssl_context")

    def client_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that every aiokafka client takes."""
        arguments: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            arguments["ssl_context"] = self.ssl_context
        if self.protocol.startswith("SASL"):
            arguments["sasl_mechanism"] = self.mechanism
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.password
        return arguments


def bootstrap_servers(brokers: Sequence[str]) -> list[str]:
    """Check ``host:port`` strings (``kafka://`` is allowed before them) and return them plain.

    >>> bootstrap_servers(["kafka://a:9092", "b:9093"])
    ['a:9092', 'b:9093']
    """
    plain = [broker.removeprefix("kafka://") for broker in brokers]
    for broker in plain:
        host, _, port = broker.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigurationError(f"broker {broker!r} is not host:port, such as kafka-1:9092")
    if not plain:
        raise ConfigurationError("no Kafka broker is given; name at least one as host:port")
    return plain


def translated(exc: Exception, what: str) -> ConfigurationError | LogUnavailable:
    """Return our error for an aiokafka one: stop and tell, or retry."""
    reason = f"{what}: {type(exc).__name__}: {exc}"
    if isinstance(exc, HOPELESS):
        return ConfigurationError(f"{reason}; check the credentials, the ACLs and the topic's name")
    if isinstance(exc, TOO_LARGE):
        return ConfigurationError(f"{reason}; raise the topic's max.message.bytes")
    if isinstance(exc, InvalidTimestampError):
        return LogUnavailable(
            f"{reason}; set this machine's clock: the broker takes no time that is further ahead of"
            " its own than the topic's message.timestamp.after.max.ms"
        )
    return LogUnavailable(reason)


@dataclass(slots=True)
class _Group:
    """Records of several callers that go to one partition together, and what became of them."""

    records: list[Record] = field(default_factory=list)
    failure: BaseException | None = None


@dataclass(slots=True)
class _Line:
    """One partition: the group that is being sent holds the lock, the next one gathers."""

    waiting: _Group = field(default_factory=_Group)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Shared:
    """aiokafka's producer and how many sends use it.

    It is not stopped under them: a send that waits for metadata then would wait for ever.
    """

    client: Any
    users: int = 0
    retired: bool = False


class KafkaLog:
    """Idempotent producer with acks from all in-sync replicas; implements ``ports.Log``.

    ``request_bytes_max`` bounds one request (and so one record) and must not exceed the topics'
    ``max.message.bytes``; ``batch_bytes_max`` is the size of one record batch before compression.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        *,
        security: Security | None = None,
        client_id: str = "stream_app",
        request_timeout_ms: int = 30_000,
        request_bytes_max: int = 1_048_576,
        batch_bytes_max: int = 262_144,
        compression: str | None = None,
    ) -> None:
        if not 0 < batch_bytes_max <= request_bytes_max - REQUEST_OVERHEAD_BYTES:
            raise ConfigurationError(
                f"batch_bytes_max={batch_bytes_max} must be positive and at least "
                f"{REQUEST_OVERHEAD_BYTES} below request_bytes_max={request_bytes_max}"
            )
        self._record_bytes_max = request_bytes_max - REQUEST_OVERHEAD_BYTES
        self._arguments = {
            "bootstrap_servers": bootstrap_servers(brokers),
            "client_id": client_id,
            "enable_idempotence": True,
            "acks": "all",
            "linger_ms": 0,
            "request_timeout_ms": request_timeout_ms,
            "max_request_size": request_bytes_max,
            "max_batch_size": batch_bytes_max,
            "compression_type": compression,
            **(security or Security()).client_arguments(),
        }
        self._producer: _Shared | None = None
        self._lock = asyncio.Lock()
        self._lines: dict[tuple[str, int], _Line] = {}
        self._retired: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect now instead of at the first send. Raises like :meth:`send`."""
        await self._started_producer()

    async def stop(self) -> None:
        """Wait for what is being sent and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await uncancelled(producer.client.stop())
        if self._retired:
            await asyncio.wait(self._retired)

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Append ``records`` to one partition in order; return when all are acknowledged.

        Raises ``LogUnavailable`` when that cannot be known (records may then be there or not), and
        ``ConfigurationError`` for a record above the size limit or a refusal no retry can heal.
        """
        if not records:
            return
        line = self._lines.setdefault((topic, partition), _Line())
        group = line.waiting
        group.records.extend(records)
        # An idempotent producer has one batch of a partition in flight. Who comes meanwhile waits,
        # and the first of those sends for all of them: one request instead of one for each.
        async with line.lock:
            if line.waiting is group:
                line.waiting = _Group()
                try:
                    await self._append(topic, partition, group.records)
                except BaseException as exc:
                    group.failure = exc
                    raise
        if isinstance(group.failure, Exception):
            raise group.failure
        if group.failure is not None:
            raise LogUnavailable(f"appending to {topic}[{partition}] was given up")

    async def _append(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        producer = await self._started_producer()
        producer.users += 1
        try:
            futures = [
                await producer.client.send_batch(builder, topic, partition=partition)
                for builder in self._builders(producer.client, topic, records)
            ]
            await asyncio.gather(*futures)
        except (KafkaError, TimeoutError, OSError) as exc:
            # An idempotent producer that gave up on a batch may have a gap in its sequence and be
            # refused for ever; a new one starts a new sequence.
            producer.retired = True
            if self._producer is producer:
                self._producer = None
            raise translated(exc, f"cannot append to {topic}[{partition}]") from exc
        finally:
            producer.users -= 1
            if producer.retired and not producer.users:
                self._stop_soon(producer.client)

    def _builders(self, producer: Any, topic: str, records: Sequence[Record]) -> list[Any]:
        builder = producer.create_batch()
        builders = [builder]
        for record in records:
            if not _appended(builder, record):
                builder.close()
                builder = producer.create_batch()
                builders.append(builder)
                appended = _appended(builder, record)
                assert appended, "an empty batch takes any record"
        builder.close()
        # Only a batch of a single large record can exceed batch_bytes_max.
        for builder in builders:
            if builder.size() > self._record_bytes_max:
                raise ConfigurationError(
                    f"a record for topic {topic} takes {builder.size()} bytes, the request limit "
                    f"leaves {self._record_bytes_max}; raise request_bytes_max and the topic's "
                    "max.message.bytes, or make the record smaller"
                )
        return builders

    async def _started_producer(self) -> _Shared:
        async with self._lock:
            if self._producer is None:
                try:
                    self._producer = _Shared(await self._connected())
                except (KafkaError, TimeoutError, OSError) as exc:
                    servers = self._arguments["bootstrap_servers"]
                    raise translated(exc, f"cannot connect to Kafka at {servers}") from exc
            return self._producer

    async def _connected(self) -> Any:
        producer = aiokafka.AIOKafkaProducer(**self._arguments)
        paced(producer.client)
        try:
            await producer.start()
        except UnknownError:
            # Tansu answers InitProducerId so. Without idempotence a retry may append twice, which
            # readers survive (they drop what they have seen); order is kept: one batch in flight.
            await uncancelled(producer.stop())
            if not self._arguments["enable_idempotence"]:
                raise
            log.warning("the broker has no idempotent producers: a retried send may append twice")
            self._arguments["enable_idempotence"] = False
            return await self._connected()
        except BaseException:
            await uncancelled(producer.stop())
            raise
        return producer

    def _stop_soon(self, client: Any) -> None:
        task = asyncio.create_task(_stop_quietly(client))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


async def _stop_quietly(producer: Any) -> None:
    try:
        await uncancelled(producer.stop())
    except (KafkaError, TimeoutError, OSError) as exc:
        log.warning("a failed producer did not stop cleanly: %r", exc)


def _appended(builder: Any, record: Record) -> bool:
    """False when the batch is full."""
    appended = builder.append(
        key=record.key,
        value=record.value,
        timestamp=record.timestamp_ms,
        headers=list(record.headers),
    )
    return appended is not None
