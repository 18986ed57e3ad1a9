"""What LEARN tells the STOCK stage: units sold, by item. Records of a batch by item partition."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.errors import EventRejected
from stream_app.ports import VALUE_BYTES_MAX

SCHEMA = 1
UNITS_MAX = 1e6  # of one event: more is a mistake, and would drown an item's history

SALE = np.dtype([("item", "u8"), ("ts", "f8"), ("offset", "i8"), ("units", "f8")])


class Sales(NamedTuple):
    """Sales of one LEARN batch in one item partition."""

    source_partition: int
    rows: NDArray[np.void]  # (n,) SALE, rising by source offset
    names: list[str]  # item ids as text, of the distinct items


class _Wire(msgspec.Struct, array_like=True):
    schema: int
    source: int
    rows: bytes
    names: list[str]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Wire).decode


def route_sales(
    items: NDArray[np.uint64],
    ts: NDArray[np.float64],
    offsets: NDArray[np.int64],
    units: NDArray[np.float64],
    names: list[str],
    *,
    source: int,
    partitions: int,
) -> list[tuple[int, bytes]]:
    """Records by item partition for ``(n,)`` sales in offset order; ``names`` run in parallel.

    What does not fit into one record goes into several.
    """
    rows = np.empty(len(items), SALE)
    rows["item"], rows["ts"], rows["offset"] = items, ts, offsets
    rows["units"] = np.minimum(units, UNITS_MAX)
    owner = (items % np.uint64(partitions)).astype(np.int64)
    routed = []
    for q in np.unique(owner).tolist():
        records = _records(source, rows, names, np.flatnonzero(owner == q))
        routed += [(q, record) for record in records]
    return routed


def _records(
    source: int, rows: NDArray[np.void], names: list[str], some: NDArray[np.int64]
) -> Iterator[bytes]:
    """``some`` of the ``rows`` as one record, or as several."""
    texts = sorted({names[k] for k in some.tolist()})
    record = encode_sales(Sales(source, rows[some], texts))
    if len(record) <= VALUE_BYTES_MAX or len(some) < 2:
        yield record
        return
    for half in np.array_split(some, 2):
        yield from _records(source, rows, names, half)


def encode_sales(message: Sales) -> bytes:
    """One ``sales`` record. The ids of ``names`` are their stable hashes."""
    return _pack(_Wire(SCHEMA, message.source_partition, message.rows.tobytes(), message.names))


def decode_sales(value: bytes | None) -> Sales:
    """The inverse; raises :class:`~stream_app.errors.EventRejected` for anything else.

    >>> decode_sales(encode_sales(Sales(3, np.zeros(2, SALE), ["sku-1"]))).names
    ['sku-1']
    """
    try:
        wire = _unpack(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise EventRejected("malformed", f"not a sales record: {exc}") from exc
    if wire.schema != SCHEMA or len(wire.rows) % SALE.itemsize:
        raise EventRejected("malformed", f"schema {wire.schema}, {len(wire.rows)} bytes of rows")
    rows = np.frombuffer(wire.rows, SALE)
    if not (np.isfinite(rows["units"]).all() and np.isfinite(rows["ts"]).all()):
        raise EventRejected("malformed", "a number is not finite")
    return Sales(wire.source, rows, wire.names)
