"""What the pipeline needs from the outside world: three small ports and the nouns they exchange.

Adapters: :mod:`stream_app.adapters.redis_store`, :mod:`stream_app.adapters.kafka` and the shipped
in-memory ones of :mod:`stream_app.adapters.memory`, kept equal by one contract suite.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]

USERS = "u"  # state of customers, partitioned like the clickstream topic
ITEMS = "i"  # state of items, partitioned like the co-occurrence topic
ACCOUNTS_ID = b"accounts"  # beside the states of a partition: its accounts, as JSON for tools

RECORD_BYTES_MAX = 4_194_304  # of our own topics, with what Kafka adds
VALUE_BYTES_MAX = RECORD_BYTES_MAX - 1_024


def _nothing() -> None:
    """Where nobody wants to know."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """The records of one Kafka fetch of one partition, not decoded.

    ``offsets``, ``keys``, ``values``, ``timestamps_ms`` and ``headers`` run in parallel and rise by
    offset; offsets may have gaps (control records, aborted transactions, compaction).
    ``next_offset`` is where the consumer goes on: at least the last offset + 1. Who handles a batch
    may call ``stored()`` when its effects are in the store: the next one may begin meanwhile.
    """

    topic: str
    partition: int
    next_offset: int
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers]
    stored: Callable[[], None] = field(default=_nothing, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def since(self, offset: int | None) -> "RawBatch":
        """The records from ``offset`` on: what a redelivered batch has that was not applied yet."""
        if offset is None or not self.offsets or self.offsets[0] >= offset:
            return self
        first = bisect_left(self.offsets, offset)
        return self._slice(first, len(self), max(self.next_offset, offset))

    def only(self, row: int) -> "RawBatch":
        """A batch of the record in ``row`` alone."""
        return self._slice(row, row + 1, self.offsets[row] + 1)

    def split(self, n: int) -> "tuple[RawBatch, RawBatch]":
        """The first ``n`` of its records, and the others: at least one each."""
        return self._slice(0, n, self.offsets[n]), self._slice(n, len(self), self.next_offset)

    def parts(self, *, bytes_max: int) -> Iterator["RawBatch"]:
        """The same records in order, in batches of about ``bytes_max`` bytes of values."""
        first, size = 0, 0
        for row, value in enumerate(self.values):
            size += len(value or b"")
            if size >= bytes_max and row + 1 < len(self):
                yield self._slice(first, row + 1, self.offsets[row] + 1)
                first, size = row + 1, 0
        yield self._slice(first, len(self), self.next_offset)

    def _slice(self, first: int, end: int, next_offset: int) -> "RawBatch":
        return RawBatch(
            self.topic,
            self.partition,
            next_offset,
            self.offsets[first:end],
            self.keys[first:end],
            self.values[first:end],
            self.timestamps_ms[first:end],
            self.headers[first:end],
            self.stored,
        )


class Record(NamedTuple):
    """One record to produce."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Ownership of one partition of one state space, as the store granted it.

    ``cursor`` is the next offset to apply, ``None`` before the first commit. ``meta`` is the
    partition's own state and ``outbox`` what was committed last and may have to be published again.
    """

    space: str
    partition: int
    epoch: int
    token: bytes
    cursor: int | None
    meta: bytes
    outbox: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic step from offset ``expected`` to ``cursor``: state, partition state, outbox.

    ``writes`` are (id, blob) pairs; an empty blob deletes the id's state.
    """

    expected: int | None
    cursor: int
    writes: Sequence[tuple[bytes, bytes]]
    meta: bytes
    outbox: bytes


class PublicHash(NamedTuple):
    """A public Redis hash (``rec:<user_id>``), replaced whole unless (version, epoch) is older.

    Field ``names[k]`` holds ``values[k]``, besides ``version`` and ``epoch``. Many hashes of a
    batch have the same names: let them share one tuple, which stores make use of.
    """

    key: str
    version: int
    epoch: int
    names: tuple[bytes, ...]
    values: Sequence[bytes]


class StateStore(Protocol):
    """Partitioned state with a fenced, atomic commit.

    Raises :class:`~stream_app.errors.StoreUnavailable` from every verb when it cannot serve.
    """

    async def claim(self, space: str, partition: int, *, epoch_min: int = 0) -> Claim:
        """Take the partition from whoever has it; the epoch rises, also above ``epoch_min``."""
        ...

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        """State blobs of ``ids``, each in its partition, in order; ``None`` where there is none."""
        ...

    async def commit(self, claim: Claim, step: Commit) -> None:
        """Write ``step`` if the claim still holds and the stored cursor is ``step.expected``.

        Repeating a step whose reply was lost succeeds and changes nothing. Raises ``Fenced`` when
        another worker claimed the partition, ``RolledBack`` when the store went back in time.
        """
        ...


class PublicStore(Protocol):
    """The keys that storefronts read."""

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        """Replace hashes that are not newer than the given ones; returns how many were replaced."""
        ...

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """Set string keys: ``similar:<item_id>``, ``trending:<segment>``, ``profile:<user_id>``."""
        ...

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        """A public hash or value; ``None`` when the key does not exist."""
        ...


class PublishedHashes(Protocol):
    """Public hashes that are out already; every public store is one, too."""

    async def get_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        """Public hashes in order; an empty one for a key that does not exist."""
        ...

    async def amend_hashes(self, records: Sequence[PublicHash]) -> int:
        """Replace the given fields where (version, epoch) is still theirs; returns how often.

        Their other fields and what is left of their lifetime stay.
        """
        ...


class PublicKeys(PublicStore, PublishedHashes, Protocol):
    """Both, as an adapter has them."""


class Log(Protocol):
    """An ordered, partitioned log to produce to."""

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Append ``records`` in order; returns when all are acknowledged by all in-sync replicas.

        Raises ``LogUnavailable`` when that cannot be known; records may then be there or not.
        """
        ...
