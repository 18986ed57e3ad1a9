"""COPY: one batch of a vendor's topic to the clickstream, keyed by customer.

whose is it → dead-letter what is nobody's → send the rest → commit the cursor

The pipeline takes a record from the clickstream only: there a customer's events have one order.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import msgspec

from stream_app.adapters.partitioning import partition_of
from stream_app.books import Books
from stream_app.errors import EventRejected, RolledBack
from stream_app.events import REASONS, Reject
from stream_app.formats import FORMAT_HEADER, ORIGIN_HEADER, Formats, customer_key
from stream_app.formats.segment import segment_calls
from stream_app.ports import (
    ACCOUNTS_ID,
    Claim,
    Commit,
    Headers,
    Log,
    RawBatch,
    Record,
    StateStore,
)
from stream_app.rejects import dead_letter
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.wire import Event

SEGMENT = b"segment"
HEADERS_BYTES_MAX = 32_768  # of one record: with the largest event it still fits into the topic

Committed = Callable[[str, int], Awaitable[int | None]]


def space_of(topic: str) -> str:
    """The state space of a topic's stage: nothing but cursors and accounts."""
    return f"copy-{topic}:"


class Meta(Books):
    """A source partition's accounts: ``applied`` records were sent."""

    what = "source partition"

    ignored: int = 0  # well-formed, but they mean nothing here

    def outcomes(self) -> dict[str, int]:
        """See :meth:`stream_app.books.Books.outcomes`."""
        return {**Books.outcomes(self), "rejected": self.ignored}


@dataclass(slots=True)
class Owned:
    """A partition of the source topic that this worker owns."""

    claim: Claim
    cursor: int | None
    meta: Meta


class Copy:
    """The COPY stage of one topic. A batch of a partition at a time; partitions side by side.

    ``committed`` tells how far the consumer group has committed a partition, ``None`` where it has
    not; ``clock`` gives unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        store: StateStore,
        log: Log,
        committed: Committed,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.topic = topic
        self.name = f"copy-{topic}"  # of the stage
        self.space = space_of(topic)
        self.owned: dict[int, Owned] = {}
        self.formats = Formats(settings.event_format)
        self._format = settings.source_formats()[topic].encode()
        self._settings = settings
        self._store = store
        self._log = log
        self._committed = committed
        self._clock = clock
        self._dead_letter_partitions = max(
            settings.clickstream_partitions, settings.cooccurrence_partitions
        )

    async def process(self, batch: RawBatch) -> None:
        """Copy ``batch``; errors as for :meth:`stream_app.pipeline.Learn.process`."""
        owned = self.owned[batch.partition]
        batch = batch.since(owned.cursor)
        if owned.cursor is not None and batch.next_offset <= owned.cursor:
            return  # a redelivery of what is copied
        meta = msgspec.structs.replace(owned.meta)
        records, rejects = self._sorted(batch, meta)
        await dead_letter(
            self._log,
            self._settings.dead_letter_topic,
            batch,
            rejects,
            partition=batch.partition % self._dead_letter_partitions,
            withheld=self._settings.pseudonym_key_file is not None,
        )
        await asyncio.gather(*(self._send(number, part) for number, part in records.items()))
        meta.dead_lettered += len(rejects)
        meta.skipped += batch.next_offset - (owned.cursor or 0) - len(batch)
        # Send before commit: what is sent twice counts once, what is not sent is lost.
        await self._commit(owned, batch.next_offset, meta)

    def _sorted(self, batch: RawBatch, meta: Meta) -> tuple[dict[int, list[Record]], list[Reject]]:
        """What to send, by clickstream partition and in order, and what is nobody's."""
        parts: dict[int, list[Record]] = defaultdict(list)
        rejects: list[Reject] = []
        partitions = self._settings.clickstream_partitions
        for row in range(len(batch)):
            try:
                found = list(self._records(batch, row))
            except EventRejected as exc:
                rejects.append(Reject(row, exc.reason, exc.detail[:200]))
                continue
            for record in found:
                parts[partition_of(record.key, partitions)].append(record)
            meta.applied += bool(found)
            meta.ignored += not found
        return parts, rejects

    def _records(self, batch: RawBatch, row: int) -> Iterator[Record]:
        """The record in ``row`` under its customer's key; nothing if it means nothing here.

        A batch of calls of several customers becomes a record for each call: none of them could
        have all under its key. Raises ``EventRejected``.
        """
        value = self._sized(batch, row)
        given, record_ms = batch.headers[row], batch.timestamps_ms[row]
        origin = f"{batch.topic}/{batch.partition}/{batch.offsets[row]}"
        named = {name.lower(): said for name, said in given}
        if FORMAT_HEADER not in named:
            given = (*given, (FORMAT_HEADER, self._format))
        events = self.formats.events(value, given, record_ms)
        keys = {self._key(event) for event in events}
        calls = []
        if len(keys) > 1 and named.get(FORMAT_HEADER, self._format) == SEGMENT:
            calls = segment_calls(value)
        if not calls:
            calls = [value] if events else []
        for number, call in enumerate(calls):
            place = origin
            if len(calls) > 1:
                events, place = self.formats.events(call, given, record_ms), f"{origin}/{number}"
            if events:
                yield self._record(events[0], call, given, record_ms, place)

    def _record(
        self, event: Event, value: bytes, headers: Headers, record_ms: int, origin: str
    ) -> Record:
        # The broker would refuse a time that is far ahead of its own, for ever.
        latest_ms = int(self._clock() * 1000)
        at_ms = min(record_ms, latest_ms) if record_ms > 0 else None
        return Record(self._key(event), value, (*headers, (ORIGIN_HEADER, origin.encode())), at_ms)

    def _key(self, event: Event) -> bytes:
        """Raises ``EventRejected`` where there is none."""
        key = customer_key(event)
        if key is None:
            raise EventRejected("missing_customer", REASONS["missing_customer"])
        if not 0 < len(key.decode("utf-8", "replace")) <= self._settings.id_chars_max:
            raise EventRejected("bad_id", "user_id" if event.user_id is not None else "session_id")
        return key

    def _sized(self, batch: RawBatch, row: int) -> bytes:
        """The value, of a size that the clickstream takes; raises ``EventRejected``."""
        value = batch.values[row]
        if not value:
            raise EventRejected("empty", REASONS["empty"])
        if len(value) > self._settings.event_bytes_max:
            raise EventRejected("oversize", f"{len(value)} bytes")
        beside = sum(len(name) + len(said) for name, said in batch.headers[row])
        if beside > HEADERS_BYTES_MAX:
            raise EventRejected("oversize", f"{beside} bytes of headers")
        return value

    async def _send(self, partition: int, records: list[Record]) -> None:
        topic = self._settings.clickstream_topic
        await retrying(lambda: self._log.send(topic, partition, records), f"copying {self.topic}")

    async def _commit(self, owned: Owned, cursor: int, meta: Meta) -> None:
        writes = [(ACCOUNTS_ID, meta.accounts(cursor))]
        step = Commit(owned.cursor, cursor, writes, meta.encode(), b"")
        await retrying(lambda: self._store.commit(owned.claim, step), "committing what was copied")
        owned.cursor, owned.meta = cursor, meta

    async def assign(self, partition: int) -> int | None:
        """Claim a partition; returns where to read on.

        That is the furthest place known: a store that is older, or begins anew, is no reason to
        send again what the clickstream has.
        """
        held = self.owned.get(partition)
        epoch_min = held.claim.epoch if held else 0
        claim = await retrying(
            lambda: self._store.claim(self.space, partition, epoch_min=epoch_min),
            f"claiming {self.topic}",
        )
        group = await retrying(
            lambda: self._committed(self.topic, partition), f"asking how far {self.topic} is copied"
        )
        owned = Owned(claim, claim.cursor, Meta.decode(claim.meta))
        furthest = max(claim.cursor or 0, (held.cursor or 0) if held else 0, group or 0)
        if furthest > (claim.cursor or 0):
            meta = msgspec.structs.replace(owned.meta)
            meta.skipped += furthest - (claim.cursor or 0)
            try:
                await self._commit(owned, furthest, meta)
            except RolledBack:
                return await self.assign(partition)
        self.owned[partition] = owned
        return owned.cursor

    def revoke(self, partition: int) -> None:
        """Forget a partition that another worker owns now."""
        self.owned.pop(partition, None)
