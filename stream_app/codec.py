"""Wire formats of our own making: transitions for RELATE, the outbox, and the public JSON."""

import struct
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from stream_app.core.learn import TRANSITION
from stream_app.errors import EventRejected, SchemaUnknown

_MAGIC = b"SAT1"
_HEAD = struct.Struct("<4sIII")  # magic, source partition, rows, names
OUTBOX_SCHEMA = 1


class Transitions(NamedTuple):
    """What one LEARN batch tells one item partition."""

    source_partition: int
    rows: NDArray[np.void]  # (n,) TRANSITION, rising by source offset
    names: list[str]  # item ids as text, for items that may be new


def encode_transitions(message: Transitions) -> bytes:
    """One ``cooccurrence`` record. The ids of ``names`` are their stable hashes."""
    names = [name.encode("utf-8", "surrogatepass") for name in message.names]
    return b"".join(
        (
            _HEAD.pack(_MAGIC, message.source_partition, len(message.rows), len(names)),
            message.rows.tobytes(),
            np.array([len(name) for name in names], np.uint16).tobytes(),
            *names,
        )
    )


def decode_transitions(value: bytes | None) -> Transitions:
    """The inverse; raises :class:`~stream_app.errors.EventRejected` for anything else.

    >>> rows = np.zeros(2, TRANSITION)
    >>> decode_transitions(encode_transitions(Transitions(3, rows, ["sku-1"]))).names
    ['sku-1']
    """
    if value is None or len(value) < _HEAD.size or value[:4] != _MAGIC:
        raise EventRejected("malformed", "not a transitions record of this release")
    _, source, rows_n, names_n = _HEAD.unpack_from(value)
    at = _HEAD.size
    rows_end = at + rows_n * TRANSITION.itemsize
    names_at = rows_end + 2 * names_n
    if len(value) < names_at:
        raise EventRejected("malformed", f"{len(value)} bytes for {rows_n} rows")
    rows = np.frombuffer(value[at:rows_end], TRANSITION)
    ends = names_at + np.cumsum(np.frombuffer(value[rows_end:names_at], np.uint16), dtype=np.int64)
    starts = [names_at, *ends.tolist()]
    if starts[-1] != len(value):
        raise EventRejected("malformed", f"{len(value)} bytes, names end at {starts[-1]}")
    try:
        names = [value[a:b].decode() for a, b in pairwise(starts)]
    except UnicodeDecodeError as exc:
        raise EventRejected("malformed", str(exc)) from exc
    return Transitions(source, rows, names)


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
    transitions: list[tuple[int, bytes]] = []  # (item partition, record)
    lists: ListsBlock | None = None
    sales: list[tuple[int, bytes]] = []  # (item partition, record)
    profiles: list[tuple[str, bytes]] = []  # (customer, JSON)
    erased: list[str] = []  # customers whose public keys go


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
    if outbox.schema != OUTBOX_SCHEMA:
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
