"""Store, public keys and log in this process: offline replay, evaluation and demos without servers.

They answer like the Redis and Kafka adapters (one contract suite runs on both), except that nothing
expires: an expiry would read a clock, and replay must not. Limits stand in for lifetimes.
"""

import secrets
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass, field, replace

from stream_app.errors import ConfigurationError, Fenced, LogUnavailable, RolledBack
from stream_app.ports import Claim, Commit, Headers, PublicHash, RawBatch, Record

SCAN_PAGE = 1_000
NO_TIMESTAMP_MS = -1  # what Kafka delivers for a record that has none


@dataclass(slots=True)
class _Partition:
    epoch: int = 0
    token: bytes = b""
    cursor: int | None = None
    meta: bytes = b""
    outbox: bytes = b""
    blobs: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of a :class:`MemoryStore` at one moment, as a backup of a server would hold it."""

    partitions: dict[tuple[str, int], _Partition]


class MemoryStore:
    """:class:`~stream_app.ports.StateStore` in this process, fenced like the Redis one.

    Raises ``ConfigurationError`` when a commit would hold more than ``blobs_max`` blobs.
    """

    def __init__(self, *, blobs_max: int = 20_000_000) -> None:
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._blobs_max = blobs_max

    async def claim(self, space: str, partition: int, *, epoch_min: int = 0) -> Claim:
        """See :meth:`stream_app.ports.StateStore.claim`."""
        part = self._partitions.setdefault((space, partition), _Partition())
        part.epoch = max(part.epoch, epoch_min) + 1
        part.token = secrets.token_bytes(16)
        return Claim(space, partition, part.epoch, part.token, part.cursor, part.meta, part.outbox)

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        """See :meth:`stream_app.ports.StateStore.load`."""
        nothing = _Partition()
        return [
            self._partitions.get((space, partition), nothing).blobs.get(id_)
            for partition, id_ in zip(partitions, ids, strict=True)
        ]

    async def scan(self, space: str, partition: int) -> AsyncIterator[list[bytes]]:
        """See :meth:`stream_app.timers.StateScan.scan`."""
        ids = list(self._partitions.get((space, partition), _Partition()).blobs)
        for start in range(0, len(ids), SCAN_PAGE):
            yield ids[start : start + SCAN_PAGE]

    async def commit(self, claim: Claim, step: Commit) -> None:
        """See :meth:`stream_app.ports.StateStore.commit`."""
        part = self._partitions.get((claim.space, claim.partition))
        where = f"partition {claim.space}{claim.partition} in memory"
        if part is None or (part.epoch, part.token) != (claim.epoch, claim.token):
            if part is not None and part.epoch > claim.epoch:
                raise Fenced(f"{where}: claimed with epoch {part.epoch}, ours is {claim.epoch}")
            cursor = None if part is None else part.cursor
            raise RolledBack(f"{where}: the claim with epoch {claim.epoch} is gone", cursor=cursor)
        if part.cursor != step.expected:
            if part.cursor == step.cursor:
                return  # a retry: the first reply was lost
            message = f"{where}: the cursor is {part.cursor}, not {step.expected}"
            if part.cursor is not None and (step.expected is None or part.cursor > step.expected):
                raise Fenced(message)
            raise RolledBack(message, cursor=part.cursor)
        self._write(part, dict(step.writes))
        part.cursor, part.meta, part.outbox = step.cursor, step.meta, step.outbox

    def _write(self, part: _Partition, writes: dict[bytes, bytes]) -> None:
        held = sum(len(other.blobs) for other in self._partitions.values())
        if held + sum(1 for id_ in writes if id_ not in part.blobs) > self._blobs_max:
            raise ConfigurationError(
                f"the memory store is full: blobs_max={self._blobs_max}; raise it or use Redis"
            )
        for id_, blob in writes.items():
            if blob:
                part.blobs[id_] = blob
            else:
                part.blobs.pop(id_, None)

    def snapshot(self) -> Snapshot:
        """Return a backup of everything."""
        return Snapshot(_copied(self._partitions))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back in time to ``snapshot``, as a server does that lost its last writes."""
        self._partitions = _copied(snapshot.partitions)


def _copied(
    partitions: dict[tuple[str, int], _Partition],
) -> dict[tuple[str, int], _Partition]:
    return {key: replace(part, blobs=dict(part.blobs)) for key, part in partitions.items()}


class MemoryPublic:
    """:class:`~stream_app.ports.PublicStore` in this process.

    Beyond ``records_max`` keys the one not written for longest goes, where Redis would expire it.
    """

    def __init__(self, *, records_max: int = 2_000_000) -> None:
        self._records: dict[str, dict[bytes, bytes] | bytes] = {}
        self._records_max = records_max

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublicStore.put_hashes`."""
        replaced = 0
        for record in records:
            stored = self._records.get(record.key)
            if isinstance(stored, dict) and _version_of(stored) > (record.version, record.epoch):
                continue
            version = {b"version": b"%d" % record.version, b"epoch": b"%d" % record.epoch}
            self._put(record.key, version | dict(zip(record.names, record.values, strict=True)))
            replaced += 1
        return replaced

    async def get_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        """See :meth:`stream_app.ports.PublishedHashes.get_hashes`."""
        stored = [self._records.get(key) for key in keys]
        return [dict(record) if isinstance(record, dict) else {} for record in stored]

    async def amend_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublishedHashes.amend_hashes`."""
        amended = 0
        for record in records:
            stored = self._records.get(record.key)
            if not isinstance(stored, dict) or _version_of(stored) != record[1:3]:
                continue
            stored.update(zip(record.names, record.values, strict=True))
            amended += 1
        return amended

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """See :meth:`stream_app.ports.PublicStore.put_values`."""
        for key, value in pairs:
            if value:
                self._put(key, value)
            else:
                self._records.pop(key, None)

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        """See :meth:`stream_app.ports.PublicStore.get`."""
        stored = self._records.get(key)
        return dict(stored) if isinstance(stored, dict) else stored

    def _put(self, key: str, record: dict[bytes, bytes] | bytes) -> None:
        self._records.pop(key, None)  # a rewritten key becomes the youngest
        self._records[key] = record
        if len(self._records) > self._records_max:
            del self._records[next(iter(self._records))]


def _version_of(stored: dict[bytes, bytes]) -> tuple[int, int]:
    return int(stored[b"version"]), int(stored[b"epoch"])


@dataclass(slots=True)
class _Topic:
    next_offset: int = 0
    waiting: list[Record] = field(default_factory=list)


class MemoryLog:
    """:class:`~stream_app.ports.Log` in this process, read by :meth:`drain`.

    Records of topics outside ``kept_topics`` only advance the offset, because nobody drains them;
    ``None`` keeps all. Raises ``LogUnavailable`` when a partition would hold more than
    ``records_max`` records that were not drained.
    """

    def __init__(
        self, *, kept_topics: Container[str] | None = None, records_max: int = 1_000_000
    ) -> None:
        self._topics: dict[tuple[str, int], _Topic] = {}
        self._kept_topics = kept_topics
        self._records_max = records_max

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """See :meth:`stream_app.ports.Log.send`."""
        log = self._topics.setdefault((topic, partition), _Topic())
        if self._kept_topics is None or topic in self._kept_topics:
            if len(log.waiting) + len(records) > self._records_max:
                raise LogUnavailable(
                    f"{topic}-{partition} in memory is full: records_max={self._records_max}; "
                    "drain it, raise the limit or leave the topic out of kept_topics"
                )
            log.waiting.extend(records)
        log.next_offset += len(records)

    def drain(self, topic: str, partition: int) -> RawBatch:
        """Return what was sent and not drained yet, offsets contiguous, and forget it.

        Records without a time carry ``NO_TIMESTAMP_MS``.
        """
        log = self._topics.get((topic, partition), _Topic())
        records, log.waiting = log.waiting, []
        first = log.next_offset - len(records)
        headers: list[Headers] = [record.headers for record in records]
        return RawBatch(
            topic=topic,
            partition=partition,
            next_offset=log.next_offset,
            offsets=range(first, log.next_offset),
            keys=[record.key for record in records],
            values=[record.value for record in records],
            timestamps_ms=[
                NO_TIMESTAMP_MS if record.timestamp_ms is None else record.timestamp_ms
                for record in records
            ],
            headers=headers,
        )
