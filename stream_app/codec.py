"""Wire formats of our own making: transitions for RELATE, the outbox, and the public JSON."""

import struct
from base64 import b64decode, b64encode
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core.learn import TRANSITION
from stream_app.core.neighbourhood import SNAPSHOT
from stream_app.core.scoring import EXPLORATION, PINNED
from stream_app.core.state import fits
from stream_app.errors import EventRejected, SchemaUnknown

_MAGIC = b"SAT3"
_HEAD = struct.Struct("<4sIIIII")  # magic, source partition, rows, snapshots, names, segments
_MAGIC_2 = b"SAT2"
_MAGIC_1 = b"SAT1"
_HEAD_1 = struct.Struct("<4sIII")  # magic, source partition, rows, names
_FIELDS_1: list[Any] = [
    ("item", "u8"), ("previous", "u8", (3,)), ("ts", "f8"), ("offset", "i8"), ("weight", "f8"),
]  # fmt: skip
_TRANSITION_1 = np.dtype(_FIELDS_1)
_TRANSITION_2 = np.dtype([*_FIELDS_1, ("segment", "u4", (2,))])
_MERGE_HEAD = struct.Struct("<Iq")
OUTBOX_SCHEMA = 2
_OUTBOX_SCHEMAS = (1, OUTBOX_SCHEMA)  # in the first one transitions never waited
# What put an item into a list, by its number in memory as outboxes have it, and the other way
# round: there ``PINNED`` has kept the place it had before there were sources after exploration.
STORED_SOURCES = np.array(
    [*range(EXPLORATION + 1), *range(EXPLORATION + 2, PINNED + 1), EXPLORATION + 1], np.uint8
)
KNOWN_SOURCES = np.argsort(STORED_SOURCES).astype(np.uint8)


class Transitions(NamedTuple):
    """What one LEARN batch tells one item partition."""

    source_partition: int
    rows: NDArray[np.void]  # (n,) TRANSITION, rising by source offset
    names: list[str]  # item ids as text, for items that may be new
    snapshots: NDArray[np.void] = np.zeros(0, SNAPSHOT)  # (m,) SNAPSHOT, rising by source offset
    segments: Sequence[str] = ()  # of these rows, as text


def encode_transitions(message: Transitions) -> bytes:
    """One ``cooccurrence`` record. Ids of ``names`` and ``segments`` are their stable hashes."""
    texts = [text.encode("utf-8", "surrogatepass") for text in (*message.names, *message.segments)]
    return b"".join(
        (
            _HEAD.pack(
                _MAGIC,
                message.source_partition,
                len(message.rows),
                len(message.snapshots),
                len(message.names),
                len(message.segments),
            ),
            message.rows.tobytes(),
            message.snapshots.tobytes(),
            np.array([len(text) for text in texts], np.uint16).tobytes(),
            *texts,
        )
    )


def decode_transitions(value: bytes | None) -> Transitions:
    """The inverse; raises :class:`~stream_app.errors.EventRejected` for anything else.

    >>> rows = np.zeros(2, TRANSITION)
    >>> decode_transitions(encode_transitions(Transitions(3, rows, ["sku-1"]))).names
    ['sku-1']
    """
    if value is not None and value[:4] in (_MAGIC_1, _MAGIC_2):
        value = _as_of_now(value)
    if value is None or len(value) < _HEAD.size or value[:4] != _MAGIC:
        raise EventRejected("malformed", "not a transitions record of this release")
    _, source, rows_n, snapshots_n, names_n, segments_n = _HEAD.unpack_from(value)
    rows_end = _HEAD.size + rows_n * TRANSITION.itemsize
    sizes_at = rows_end + snapshots_n * SNAPSHOT.itemsize
    texts_at = sizes_at + 2 * (names_n + segments_n)
    if len(value) < texts_at:
        raise EventRejected("malformed", f"{len(value)} bytes for {rows_n} rows")
    rows = np.frombuffer(value[_HEAD.size : rows_end], TRANSITION)
    snapshots = np.frombuffer(value[rows_end:sizes_at], SNAPSHOT)
    sizes = np.frombuffer(value[sizes_at:texts_at], np.uint16)
    starts = [texts_at, *(texts_at + np.cumsum(sizes, dtype=np.int64)).tolist()]
    if starts[-1] != len(value):
        raise EventRejected("malformed", f"{len(value)} bytes, names end at {starts[-1]}")
    try:
        texts = [value[a:b].decode() for a, b in pairwise(starts)]
    except UnicodeDecodeError as exc:
        raise EventRejected("malformed", str(exc)) from exc
    return Transitions(source, rows, texts[:names_n], snapshots, texts[names_n:])


def _as_of_now(value: bytes) -> bytes:
    """A record of a release before: without gaps; in the first also segments and snapshots.

    Pairs that it tells of count as much as if there had been no time between the two.
    """
    first = value[:4] == _MAGIC_1
    head, dtype = (_HEAD_1, _TRANSITION_1) if first else (_HEAD, _TRANSITION_2)
    if len(value) < head.size:
        raise EventRejected("malformed", f"{len(value)} bytes")
    _, source, rows_n, *others = head.unpack_from(value)
    snapshots_n, names_n, segments_n = (0, *others, 0) if first else others
    end = head.size + rows_n * dtype.itemsize
    if len(value) < end:
        raise EventRejected("malformed", f"{len(value)} bytes for {rows_n} rows")
    before = np.frombuffer(value[head.size : end], dtype)
    rows = np.zeros(rows_n, TRANSITION)
    for name in before.dtype.names or ():
        rows[name] = before[name]
    now = _HEAD.pack(_MAGIC, source, rows_n, snapshots_n, names_n, segments_n)
    return now + rows.tobytes() + value[end:]


class Merge(NamedTuple):
    """The state of an anonymous session, handed over at offset ``offset`` of its partition."""

    source_partition: int
    offset: int
    blob: bytes


def encode_merge(merge: Merge) -> str:
    """The ``sa_data`` of a ``merge`` record."""
    head = _MERGE_HEAD.pack(merge.source_partition, merge.offset)
    return b64encode(head + merge.blob).decode()


def decode_merge(text: str) -> Merge:
    """The inverse; raises :class:`~stream_app.errors.EventRejected` for anything else."""
    try:
        value = b64decode(text, validate=True)
        source, offset = _MERGE_HEAD.unpack_from(value)
    except (ValueError, struct.error) as exc:
        raise EventRejected("bad_internal", f"not a handed over state: {exc}") from exc
    blob = value[_MERGE_HEAD.size :]
    if not fits(blob):
        raise EventRejected("bad_internal", f"not a state of this release: {len(blob)} bytes")
    return Merge(source, offset, blob)


class ListsBlock(msgspec.Struct):
    """Lists of one batch, committed with the state and published after: n customers, m lists.

    Arrays are little-endian bytes: ``list_owner`` (m,) u4 row of the customer, ``list_kind`` (m,)
    u1, ``counts`` (m,) u1, then ``items``/``because`` u8, ``scores`` f4 and ``sources`` u1 of all
    entries one after the other.
    """

    customers: list[str]
    versions: list[int]
    steps: list[tuple[int, int, int]]  # step, previous step, likely next step
    entered_at: list[float]
    generated_at: float
    list_owner: bytes
    list_kind: bytes
    counts: bytes
    items: bytes
    because: bytes
    scores: bytes
    sources: bytes
    names: list[str] = []  # of listed items that the store may not know yet
    scalars: dict[str, list[bytes]] = {}  # further public fields: a JSON text per customer


class Outbox(msgspec.Struct):
    """What was committed with a partition's cursor and must reach the topics and public keys."""

    schema: int = OUTBOX_SCHEMA
    transitions: list[tuple[int, bytes]] = []  # (item partition, record), of schema 1 only
    lists: ListsBlock | None = None
    sales: list[tuple[int, bytes]] = []  # (item partition, record), of this batch or before it
    profiles: list[tuple[str, bytes]] = []  # (customer, JSON)
    erased: list[str] = []  # customers whose public keys go
    erasures: list[tuple[int, float]] = []  # their hashes, and when they were erased
    clicks: list[tuple[int, bytes, bytes]] = []  # (clickstream partition, key, internal record)
    waiting: list[bytes] = []  # transitions of this batch and of those before it, in order


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Outbox).decode


def encode_outbox(outbox: Outbox) -> bytes:
    """The blob stored with the cursor."""
    return _pack(outbox)


def decode_outbox(blob: bytes) -> Outbox:
    """The inverse; empty bytes are an empty outbox.

    Raises :class:`~stream_app.errors.SchemaUnknown` when another release wrote it.
    """
    if not blob:
        return Outbox()
    try:
        outbox = _unpack(blob)
    except msgspec.MsgspecError as exc:
        raise SchemaUnknown(
            f"the outbox cannot be read ({exc}): run the release that wrote it"
        ) from exc
    if outbox.schema not in _OUTBOX_SCHEMAS:
        raise SchemaUnknown(
            f"the outbox has schema {outbox.schema}, this release reads {OUTBOX_SCHEMA}:"
            " run the release that wrote it, or newer"
        )
    return outbox


def json_text(text: str) -> bytes:
    r"""A JSON string.

    >>> json_text('a"b')
    b'"a\\"b"'
    """
    return orjson.dumps(text)
