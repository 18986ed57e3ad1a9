"""A customer's state and a partition's own: fixed records in memory, packed blobs in Redis."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream_app.core.insight_fields import (
    INSIGHT,
    USER_ARRAYS,
    USER_COUNTERS,
    USER_COUNTS,
    USER_FIELDS,
    start_insight,
)
from stream_app.core.jit import copy_into, kernel
from stream_app.core.model import (
    BOUGHT_MAX,
    CART_MAX,
    KINDS,
    QUERY_MAX,
    RING_MAX,
    SEEN_MAX,
    STEPS_MAX,
    VECTOR_MAX,
)
from stream_app.core.packing import pack, packing, unpack
from stream_app.core.raw import bytes_of, zeroed
from stream_app.core.revisits import REVISIT_WEIGHTS_N
from stream_app.core.schema_1 import PARTITION_1, USER_1
from stream_app.errors import SchemaUnknown

USER_SCHEMA = 5
PARTITION_SCHEMA = 2

# Of the arrays at the end only what is filled counts, and is stored.
USER = np.dtype(
    [
        ("schema", "u1"),
        ("step", "u1"),
        ("previous_step", "u1"),
        ("ring_n", "u1"),  # item events kept, newest last
        ("session_n", "u1"),  # how many of them belong to the current session
        ("seen_n", "u1"),
        ("vector_n", "u1"),
        ("cart_n", "u1"),
        ("bought_n", "u1"),
        ("anonymous", "u1"),
        ("category_views", "u1"),  # item events in a row, of this session, that had this category
        ("action_step", "u1"),  # in which the standing decision was made
        ("exposed", "u1"),  # experiments that have counted the customer, as bits
        ("session_bought", "u1"),
        ("session_events", "u2"),  # item events in the current session, also those no longer kept
        ("session", "u4"),  # hash of the session id, 0 = none given
        ("category", "u4"),  # hash of the last category that an item event named, 0 = none
        ("events", "u4"),
        ("sessions", "u4"),
        ("purchases", "u4"),
        ("monetary", "f4"),
        *USER_COUNTERS,
        *USER_FIELDS,
        ("id", "u8"),
        ("offset", "i8"),  # of the last event applied: the version of everything derived
        ("last_ts", "f8"),
        ("session_start", "f8"),
        ("entered_at", "f8"),  # when the current step was entered
        ("timer_ts", "f8"),  # deadline of the last time-out applied, 0 = none
        ("purchase_ts", "f8"),  # of the last purchase, 0 = none
        ("first_ts", "f8"),  # of the first event
        ("minute_paced", "f8"),  # when the events so far would have come at the highest rate
        ("day_paced", "f8"),  # allowed, by minute and by day: see core.bot_guard
        ("ring_item", "u8", (RING_MAX,)),
        ("cart_item", "u8", (CART_MAX,)),
        ("bought_item", "u8", (BOUGHT_MAX,)),
        ("vector_item", "u8", (VECTOR_MAX,)),
        *USER_ARRAYS[:1],
        ("vector_weight", "f4", (VECTOR_MAX,)),  # decayed to last_ts
        *USER_ARRAYS[1:3],
        ("ring_ts", "u4", (RING_MAX,)),
        ("bought_ts", "u4", (BOUGHT_MAX,)),  # when last; 0 = before this was kept
        ("seen", "u4", (SEEN_MAX,)),  # hashes of the last event ids, oldest first
        ("query_word", "u4", (QUERY_MAX,)),  # hashes of words searched for in this session
        ("ring_kind", "u1", (RING_MAX,)),  # with FIRST_OF_SESSION of core.learn
        *USER_ARRAYS[3:],
    ],
    align=True,
)

PARTITION = np.dtype(
    [
        ("schema", "u1"),
        ("reserved", "u1", (7,)),  # copies leave padding undefined, and blobs must be reproducible
        ("applied", "i8"),
        ("rejected", "i8"),  # by policy: duplicates
        ("dead_lettered", "i8"),
        ("skipped", "i8"),  # offsets without a record: control records, aborted, compacted
        ("transitions", "f8"),
        ("repeats", "f8"),
        ("watermark", "f8"),  # the latest event time, as far as it did not lie in the future
        ("behind_s", "f8"),  # how long after it that event's record was made
        ("revisit_weights", "f4", (REVISIT_WEIGHTS_N,)),
        ("revisit_squares", "f4", (REVISIT_WEIGHTS_N,)),  # of the gradients so far
        ("step_counts", "f8", (STEPS_MAX, STEPS_MAX)),
        ("insight", INSIGHT),
    ],
    align=True,
)

_COUNTED = {
    "ring_item": "ring_n",
    "ring_ts": "ring_n",
    "ring_kind": "ring_n",
    "seen": "seen_n",
    "query_word": "query_n",
    "vector_item": "vector_n",
    "vector_weight": "vector_n",
    "cart_item": "cart_n",
    "bought_item": "bought_n",
    "bought_ts": "bought_n",
    **USER_COUNTS,
}


Layout = tuple[int, NDArray[np.int64]]


def layout(dtype: np.dtype[np.void], without: str = "") -> Layout:
    """Return the header size and a (fields, 3) table: offset, item size, offset of the count.

    ``without`` names an array that blobs of an older schema do not have.
    """
    assert dtype.fields is not None
    header = dtype.fields["ring_item"][1]
    table = []
    for name, count in _COUNTED.items():
        if name in dtype.fields and name != without:
            field, start = dtype.fields[name][:2]
            table.append((start, field.base.itemsize, dtype.fields[count][1]))
    return header, np.array(sorted(table), np.int64)


_PACKING = packing(USER, USER_SCHEMA, _COUNTED)
# Of blobs whose fields stand as they are. Schema 3 had no more than 10 bought items.
_LAYOUTS = {2: layout(USER, without="bought_ts"), 3: layout(USER), 4: layout(USER)}


@kernel
def _fill(
    packed: NDArray[np.uint8],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    header: int,
    arrays: NDArray[np.int64],
    full: NDArray[np.uint8],
) -> None:
    for i in range(len(rows)):
        u = rows[i]
        at = starts[i]
        copy_into(full[u], packed[at : at + header])
        at += header
        for f in range(len(arrays)):
            start = arrays[f, 0]
            size = arrays[f, 1] * full[u, arrays[f, 2]]
            copy_into(full[u, start:], packed[at : at + size])
            at += size


def encode_users(users: NDArray[np.void], names: Sequence[bytes] | None = None) -> list[bytes]:
    """Blobs of the ``(n,) USER`` records, packed as :mod:`stream_app.core.packing` says.

    ``names``, the customers' ids as text, follow them: who finds a blob without having had an event
    of the customer needs it (timers, after a restart).

    >>> state = new_users(np.array([7], np.uint64))
    >>> len(encode_users(state)[0]), encode_users(state, [b"anna"])[0][-4:], USER.itemsize
    (39, b'anna', 3336)
    """
    packed, ends = pack(users, _PACKING)
    starts = [0, *ends]
    if names is None:
        return [packed[a:b] for a, b in pairwise(starts)]
    return [packed[a:b] + name for (a, b), name in zip(pairwise(starts), names, strict=True)]


def customer_name(blob: bytes) -> bytes:
    """The customer's id as text, from the end of a blob; empty in those of schema 1.

    >>> customer_name(encode_users(new_users(np.array([7], np.uint64)), [b"anna"])[0])
    b'anna'
    """
    if blob[0] == USER_SCHEMA:
        return blob[_read(blob)[1] :]
    if blob[0] not in _LAYOUTS:
        return b""
    header, arrays = _LAYOUTS[blob[0]]
    return blob[header + sum(size * blob[count] for _, size, count in arrays.tolist()) :]


def fits(blob: bytes) -> bool:
    """Whether ``blob`` is a whole record, as it came by wire: that may be anything."""
    if not blob or blob[0] not in (*_LAYOUTS, USER_SCHEMA):
        return False
    if blob[0] == USER_SCHEMA:
        user, end = _read(blob)
        whole = end == len(blob)
    elif whole := _fits_layout(blob, _LAYOUTS[blob[0]]):
        user = decode_users(np.zeros(1, np.uint64), [blob])
    if not whole:
        return False
    (one,) = user
    kinds = one["ring_kind"][: one["ring_n"]] & 0x7F
    return bool(
        (kinds < len(KINDS)).all()
        and one["session_n"] <= one["ring_n"]
        and one["step"] < STEPS_MAX
        and one["previous_step"] < STEPS_MAX
    )


def _read(blob: bytes) -> tuple[NDArray[np.void], int]:
    """The ``(1,) USER`` record of a packed blob, and its bytes; -1 when it is not whole."""
    user = zeroed(1, USER)
    (end,) = unpack([blob], np.zeros(1, np.int64), user, _PACKING).tolist()
    return user, end


def _fits_layout(blob: bytes, form: Layout) -> bool:
    header, arrays = form
    if len(blob) < header:
        return False
    sizes = [size * blob[count] for _, size, count in arrays.tolist()]
    assert USER.fields is not None
    whole = {start: field.itemsize for field, start, *_ in USER.fields.values()}
    rooms = [whole[start] for start in arrays[:, 0].tolist()]
    fitting = all(size <= room for size, room in zip(sizes, rooms, strict=True))
    return fitting and len(blob) == header + sum(sizes)


def new_users(ids: NDArray[np.uint64]) -> NDArray[np.void]:
    """``(n,) USER`` records of customers never seen before."""
    users = zeroed(len(ids), USER)
    users["schema"] = USER_SCHEMA
    users["id"] = ids
    users["offset"] = -1
    return users


def decode_users(ids: NDArray[np.uint64], blobs: Sequence[bytes | None]) -> NDArray[np.void]:
    """``(n,) USER`` records from blobs; ``None`` is a new customer.

    Blobs of schemas 1 to 4 are migrated. Raises :class:`~stream_app.errors.SchemaUnknown` for a
    blob of a newer release, and for one that is not whole.
    """
    users = new_users(ids)
    known = [(row, blob) for row, blob in enumerate(blobs) if blob]
    if not known:
        return users
    for schema in {blob[0] for _, blob in known}:
        some = [(row, blob) for row, blob in known if blob[0] == schema]
        rows = np.array([row for row, _ in some], np.int64)
        if schema == USER_SCHEMA:
            if (unpack([blob for _, blob in some], rows, users, _PACKING) < 0).any():
                raise SchemaUnknown(
                    "a blob of customer state is not whole: it is not what a release wrote, so"
                    " restore the backup"
                )
        elif schema in _LAYOUTS:
            unpack_users([blob for _, blob in some], rows, users, _LAYOUTS[schema])
            users["schema"][rows] = USER_SCHEMA
        elif schema == 1:
            users[rows] = migrated_users([blob for _, blob in some])
        else:
            raise SchemaUnknown(
                f"customer state has schema {schema}, this release reads {USER_SCHEMA}:"
                " run the release that wrote it, or newer"
            )
    return users


def unpack_users(
    blobs: Sequence[bytes], rows: NDArray[np.int64], users: NDArray[np.void], form: Layout
) -> None:
    """Fill ``users[rows]`` from blobs of the given layout; what follows the arrays is left out."""
    sizes = np.array([len(blob) for blob in blobs], np.int64)
    packed = np.frombuffer(b"".join(blobs), np.uint8)
    _fill(packed, sizes.cumsum() - sizes, rows, *form, bytes_of(users))


def migrated_users(blobs: Sequence[bytes]) -> NDArray[np.void]:
    """``(n,) USER`` records from blobs of schema 1: what it did not know is zero."""
    old = np.zeros(len(blobs), USER_1)
    unpack_users(blobs, np.arange(len(blobs)), old, layout(USER_1))
    users = np.zeros(len(blobs), USER)
    for name in USER_1.names or ():
        if old[name].ndim > 1:
            users[name][:, : old[name].shape[1]] = old[name]
        else:
            users[name] = old[name]
    users["schema"] = USER_SCHEMA
    return users


def new_partition() -> NDArray[np.void]:
    """A ``(1,) PARTITION`` record before the first event."""
    partition = np.zeros(1, PARTITION)
    partition["schema"] = PARTITION_SCHEMA
    start_insight(partition["insight"])
    return partition


def decode_partition(blob: bytes) -> NDArray[np.void]:
    """The ``(1,) PARTITION`` record of a committed partition; empty bytes give a new one.

    What follows it in the blob is left to the caller. That of schema 1 is migrated.
    """
    partition = new_partition()
    if not blob:
        return partition
    if blob[0] == PARTITION_SCHEMA and len(blob) >= PARTITION.itemsize:
        return np.frombuffer(blob, PARTITION, count=1).copy()
    if blob[0] != 1 or len(blob) != PARTITION_1.itemsize:
        raise SchemaUnknown(
            f"partition state has schema {blob[0]} and {len(blob)} bytes, this release reads"
            f" {PARTITION_SCHEMA} with {PARTITION.itemsize}: run the release that wrote it"
        )
    old = np.frombuffer(blob, PARTITION_1)
    for name in PARTITION_1.names or ():
        if name == "step_counts":
            steps = old[name].shape[1]
            partition[name][:, :steps, :steps] = old[name]
        elif name != "schema":
            partition[name] = old[name]
    return partition


assert len(KINDS) < 256, "kinds are stored in one byte"
