"""A customer's record in few bytes, and back, to the bit: what Redis keeps of it.

Most bytes of a record are zero, or as those of another field: a session's events are mostly all
events, times lie close together, and an item that was looked at is in the vector and the cart, too.
So a packed record is

1. the header and the small arrays in groups of eight bytes: a mask of those that are not zero, and
   these; before, a field is XORed with one that it mostly equals, and an entry of a list with the
   one after it;
2. a byte for each item of the lists: which of the different items it is, the next new one if it was
   not there before; then the ids of these;
3. the arrays that do not get smaller: hashes and weights.

Used by :mod:`stream_app.core.state`, which knows the fields. Blobs may come from anywhere: whatever
their bytes are, :func:`unpack` reads and writes within its arrays.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import allocating, copy_into, kernel, signed
from stream_app.core.packed_parts import (
    COUNT,
    GROUP,
    REFS_MAX,
    ROOM,
    SIZE,
    SLOTS,
    START,
    put_groups,
    put_items,
    put_small,
    take_groups,
    take_items,
    take_small,
)
from stream_app.core.raw import bytes_of

# Field of the header, and the one that it mostly equals or is zero beside; that one comes first.
_ALIKE = (
    ("session_n", "ring_n"),
    ("seen_n", "ring_n"),
    ("action_step", "step"),
    ("logged_action", "action"),
    ("week_on", "moment_on"),
    ("session_moves", "session_events"),
    ("events", "session_events"),
    ("moment_n", "session_moves"),
    ("week_n", "moment_n"),
    ("session_value", "moment_value"),
    ("monetary", "session_value"),
    ("logged_propensity", "action_propensity"),
    ("p_churn", "p_week"),
    ("week_ts", "action_ts"),
    ("entered_at", "last_ts"),
    ("session_start", "last_ts"),
    ("first_ts", "session_start"),
)
# Arrays whose entries mostly equal the next one, and what the last one mostly equals.
_CHAINED = {
    "offer_ts": "action_ts",
    "ring_ts": "action_ts",
    "bought_ts": "action_ts",
    "ring_kind": "last_kind",
}
_ARRAYS_ALIKE = {"week_codes": "moment_codes", "ripe_codes": "week_codes"}
_WHOLE = ("vector_weight", "seen", "query_word")


class Packing(NamedTuple):
    """How records of a type are packed.

    ``alike (bytes, 2)``: where one is in the header, and the one that it mostly equals.
    ``items``, ``small`` and ``whole (arrays, 7)``: the arrays of each part, in columns as
    :mod:`stream_app.core.packed_parts` has them.
    ``small_max`` and ``packed_max`` are bytes: of the small arrays, and of a packed record.
    """

    schema: int
    header: int
    alike: NDArray[np.int64]
    items: NDArray[np.int64]
    small: NDArray[np.int64]
    whole: NDArray[np.int64]
    small_max: int
    packed_max: int


def packing(dtype: np.dtype[np.void], schema: int, counted: Mapping[str, str]) -> Packing:
    """For ``dtype``, whose arrays have as many entries as the field ``counted[name]`` says."""
    assert dtype.fields is not None and dtype.itemsize % GROUP == 0
    fields = dtype.fields
    header = min(fields[name][1] for name in counted)
    assert header % GROUP == 0 and fields["schema"][1] == 0
    alike: list[tuple[int, int]] = []
    for k, (name, like) in enumerate(_ALIKE):
        assert like not in dict(_ALIKE[k:]), "it is read before"
        size = min(fields[name][0].itemsize, fields[like][0].itemsize)
        alike += [(fields[name][1] + b, fields[like][1] + b) for b in range(size)]
    tables: dict[str, list[tuple[int, ...]]] = {"items": [], "small": [], "whole": []}
    for name, count in sorted(counted.items(), key=lambda pair: fields[pair[0]][1]):
        field, start = fields[name][:2]
        size, chained, other = field.base.itemsize, _CHAINED.get(name), _ARRAYS_ALIKE.get(name)
        kind = "items" if name.endswith("_item") else "whole" if name in _WHOLE else "small"
        row: tuple[int, ...] = (start, size, fields[count][1], field.itemsize // size)
        row += (fields[chained][1] if chained else -1,)
        row += (fields[other][1], fields[counted[other]][1]) if other else (-1, -1)
        tables[kind].append(row)
    items, small, whole = (np.array(rows, np.int64) for rows in tables.values())
    assert (items[:, SIZE] == GROUP).all() and items[:, ROOM].sum() <= REFS_MAX
    # At worst every array is full, each group has its mask, each item its byte.
    packed_max = 1 + dtype.itemsize + dtype.itemsize // GROUP + 2 * GROUP + REFS_MAX
    small_max = int((small[:, ROOM] * small[:, SIZE]).sum()) // GROUP * GROUP + GROUP
    alike_table = np.array(alike, np.int64)
    return Packing(schema, header, alike_table, items, small, whole, small_max, packed_max)


@allocating
def _pack(
    full: NDArray[np.uint8], words: NDArray[np.uint64], form: Packing, out: NDArray[np.uint8]
) -> NDArray[np.int64]:
    ends = np.zeros(len(full), np.int64)
    head_words = np.zeros(form.header // GROUP, np.uint64)
    small_words = np.zeros(form.small_max // GROUP, np.uint64)
    head, small = head_words.view(np.uint8), small_words.view(np.uint8)
    items, slots = np.zeros(REFS_MAX, np.uint64), np.zeros(SLOTS, np.uint8)
    ids, used = items.view(np.uint8), np.zeros(REFS_MAX, np.int64)
    at = 0
    for u in range(len(full)):
        user = full[u]
        out[at] = form.schema
        copy_into(head_words, words[u, : len(head_words)])
        head[0] = 0
        for k in range(len(form.alike)):
            head[form.alike[k, 0]] ^= user[form.alike[k, 1]]
        at = put_groups(head_words, len(head_words), out, at + 1)
        n = put_small(user, form.small, small)
        for k in range(n, (n + GROUP - 1) // GROUP * GROUP):
            small[k] = 0
        at = put_groups(small_words, (n + GROUP - 1) // GROUP, out, at)
        at, n = put_items(user, words[u], form.items, out, at, items, slots, used)
        copy_into(out[at:], ids[: n * GROUP])
        at += n * GROUP
        for f in range(len(form.whole)):
            start = form.whole[f, START]
            n = form.whole[f, SIZE] * user[form.whole[f, COUNT]]
            copy_into(out[at:], user[start : start + n])
            at += n
        ends[u] = at
    return ends


@kernel
def _small_bytes(form: Packing, user: NDArray[np.uint8]) -> int:
    """Of the small arrays; -1 if a count is higher than there is room for."""
    for f in range(len(form.items)):
        if user[form.items[f, COUNT]] > form.items[f, ROOM]:
            return -1
    for f in range(len(form.whole)):
        if user[form.whole[f, COUNT]] > form.whole[f, ROOM]:
            return -1
    n = 0
    for f in range(len(form.small)):
        count = signed(user[form.small[f, COUNT]])
        if count > form.small[f, ROOM]:
            return -1
        n += count * form.small[f, SIZE]
    return n


@kernel
def _unpack_one(
    packed: NDArray[np.uint8],
    at: int,
    end: int,
    form: Packing,
    user: NDArray[np.uint8],
    words: NDArray[np.uint64],
    small_words: NDArray[np.uint64],
    small: NDArray[np.uint8],
    items: NDArray[np.uint64],
    ids: NDArray[np.uint8],
) -> int:
    if at >= end or packed[at] != form.schema:
        return -1
    at = take_groups(packed, at + 1, end, words, form.header // GROUP)
    if at < 0:
        return -1
    for k in range(len(form.alike)):
        user[form.alike[k, 0]] ^= user[form.alike[k, 1]]
    user[0] = form.schema
    n = _small_bytes(form, user)
    if n < 0:
        return -1
    at = take_groups(packed, at, end, small_words, (n + GROUP - 1) // GROUP)
    if at < 0:
        return -1
    take_small(small, form.small, user)
    at = take_items(packed, at, end, form.items, user, words, items, ids)
    if at < 0:
        return -1
    for f in range(len(form.whole)):
        start = form.whole[f, START]
        n = form.whole[f, SIZE] * user[form.whole[f, COUNT]]
        if at + n > end:
            return -1
        copy_into(user[start:], packed[at : at + n])
        at += n
    return at


@allocating
def _unpack(
    packed: NDArray[np.uint8],
    ends: NDArray[np.int64],
    rows: NDArray[np.int64],
    form: Packing,
    full: NDArray[np.uint8],
    words: NDArray[np.uint64],
) -> NDArray[np.int64]:
    sizes = np.zeros(len(rows), np.int64)
    small_words = np.zeros(form.small_max // GROUP, np.uint64)
    items = np.zeros(REFS_MAX, np.uint64)
    small, ids = small_words.view(np.uint8), items.view(np.uint8)
    start = 0
    for i in range(len(rows)):
        u, end = rows[i], ends[i]
        at = _unpack_one(
            packed, start, end, form, full[u], words[u], small_words, small, items, ids
        )
        sizes[i] = at - start if at >= 0 else -1
        start = end
    return sizes


def pack(users: NDArray[np.void], form: Packing) -> tuple[bytes, list[int]]:
    """All ``(n,)`` records one after the other, and where each ends."""
    out = np.empty(len(users) * form.packed_max, np.uint8)
    ends = _pack(bytes_of(users), _words_of(users), form, out)
    return out[: ends[-1] if len(ends) else 0].tobytes(), ends.tolist()


def unpack(
    blobs: list[bytes], rows: NDArray[np.int64], users: NDArray[np.void], form: Packing
) -> NDArray[np.int64]:
    """Fill ``users[rows]``, which are zeros, from blobs that begin with packed records.

    Returns how many bytes of each blob the record has, -1 of one that is not whole or has counts
    that cannot be; what is in its row then is not to be used.
    """
    ends = np.array([len(blob) for blob in blobs], np.int64).cumsum()
    packed = np.frombuffer(b"".join([*blobs, bytes(GROUP)]), np.uint8)
    return _unpack(packed, ends, rows, form, bytes_of(users), _words_of(users))


def _words_of(records: NDArray[np.void]) -> NDArray[np.uint64]:
    return np.ndarray((len(records), records.dtype.itemsize // GROUP), np.uint64, records)
