"""The parts of a customer's packed record, as :mod:`stream_app.core.packing` puts them together."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import copy_into, kernel, signed

GROUP = 8  # bytes that share a mask
REFS_MAX = 255  # different items that a byte can tell apart
SLOTS = 512  # to find an item among those before it
# Columns of a table of arrays: where it is in the record, bytes of an entry, where its count is,
# entries at most; if entries mostly equal the next one, where that is which the last one mostly
# equals; where the array is that it mostly equals, and the count of that. -1 is nowhere.
START, SIZE, COUNT, ROOM, CHAINED_TO, LIKE, LIKE_COUNT = range(7)


# Places in packed bytes are unsigned: of signed ones numba asks whether they are below zero.
@kernel
def put_groups(words: NDArray[np.uint64], n: int, out: NDArray[np.uint8], at: int) -> int:
    """Masks and bytes of ``words[:n]``."""
    one, to = np.uint64(1), np.uint64(at)
    for g in range(n):
        word = words[g]
        mask_at, mask = to, np.uint64(0)
        to += one
        if word > 0:
            for b in range(GROUP):
                value = (word >> np.uint64(8 * b)) & np.uint64(255)
                there = np.uint64(value > 0)
                out[to] = value
                to += there
                mask |= there << np.uint64(b)
        out[mask_at] = mask
    after: int = signed(to)
    return after


@kernel
def take_groups(
    packed: NDArray[np.uint8], at: int, end: int, words: NDArray[np.uint64], n: int
) -> int:
    """The inverse: fills ``words[:n]``; where it ended, -1 if beyond ``end``.

    There must be a group's bytes to read after ``end``.
    """
    one, to, stop = np.uint64(1), np.uint64(at), np.uint64(end)
    for g in range(n):
        if to >= stop:
            return -1
        mask, word = np.uint64(packed[to]), np.uint64(0)
        to += one
        if mask > 0:
            for b in range(GROUP):
                there = (mask >> np.uint64(b)) & one
                word |= (np.uint64(packed[to]) * there) << np.uint64(8 * b)
                to += there
        words[g] = word
    after: int = signed(to)
    return after if to <= stop else -1


@kernel
def _xor(to: NDArray[np.uint8], values: NDArray[np.uint8]) -> None:
    for k in range(len(values)):
        to[k] ^= values[k]


@kernel
def put_small(user: NDArray[np.uint8], arrays: NDArray[np.int64], out: NDArray[np.uint8]) -> int:
    """The small arrays one after the other, each XORed with what it mostly equals; their bytes."""
    at = 0
    for f in range(len(arrays)):
        start, size, count = arrays[f, START], arrays[f, SIZE], arrays[f, COUNT]
        last, like = arrays[f, CHAINED_TO], arrays[f, LIKE]
        n = size * user[count]
        copy_into(out[at:], user[start : start + n])
        if last >= 0 and n > 0:
            _xor(out[at:], user[start + size : start + n])
            _xor(out[at + n - size :], user[last : last + size])
        if like >= 0:
            _xor(out[at:], user[like : like + min(n, size * user[arrays[f, LIKE_COUNT]])])
        at += n
    return at


@kernel
def take_small(
    values: NDArray[np.uint8], arrays: NDArray[np.int64], user: NDArray[np.uint8]
) -> None:
    """The inverse, into a record whose header is there."""
    at = 0
    for f in range(len(arrays)):
        start, size, count = arrays[f, START], arrays[f, SIZE], arrays[f, COUNT]
        last, like = arrays[f, CHAINED_TO], arrays[f, LIKE]
        n = size * user[count]
        copy_into(user[start:], values[at : at + n])
        if last >= 0 and n > 0:
            _xor(user[start + n - size :], user[last : last + size])
            entries = user[start : start + n]
            for k in range(n - size - 1, -1, -1):
                entries[k] ^= entries[k + size]
        if like >= 0:
            _xor(user[start:], user[like : like + min(n, size * user[arrays[f, LIKE_COUNT]])])
        at += n


@kernel
def _number_of(
    item: int, items: NDArray[np.uint64], n: int, slots: NDArray[np.uint8], used: NDArray[np.int64]
) -> int:
    """Which of the ``n`` items it is; ``n``, when it is none of them, and then it is put there."""
    slot = signed(item & np.uint64(SLOTS - 1))
    while slots[slot] > 0:
        known: int = signed(slots[slot]) - 1
        if items[known] == item:
            return known
        slot = (slot + 1) & (SLOTS - 1)
    items[n] = item
    used[n] = slot
    slots[slot] = n + 1
    return n


@kernel
def put_items(
    user: NDArray[np.uint8],
    words: NDArray[np.uint64],
    arrays: NDArray[np.int64],
    out: NDArray[np.uint8],
    at: int,
    items: NDArray[np.uint64],
    slots: NDArray[np.uint8],
    used: NDArray[np.int64],
) -> tuple[int, int]:
    """A byte for each item of the lists; where they end, and how many different ``items``."""
    n = 0
    for f in range(len(arrays)):
        first = arrays[f, START] // GROUP
        for k in range(signed(user[arrays[f, COUNT]])):
            number = _number_of(words[first + k], items, n, slots, used)
            out[at] = number
            at += 1
            if number == n:
                n += 1
    for k in range(n):
        slots[used[k]] = 0
    return at, n


@kernel
def take_items(
    packed: NDArray[np.uint8],
    at: int,
    end: int,
    arrays: NDArray[np.int64],
    user: NDArray[np.uint8],
    words: NDArray[np.uint64],
    items: NDArray[np.uint64],
    ids: NDArray[np.uint8],
) -> int:
    """The inverse; where the ids end, -1 if beyond ``end`` or if a byte says what cannot be.

    ``ids`` are the bytes of ``items``.
    """
    refs = 0
    for f in range(len(arrays)):
        refs += signed(user[arrays[f, COUNT]])
    if at + refs > end:
        return -1
    n = 0
    for k in range(at, at + refs):
        number = signed(packed[k])
        if number > n:
            return -1
        n += number == n
    after = at + refs + n * GROUP
    if after > end:
        return -1
    copy_into(ids, packed[at + refs : after])
    for f in range(len(arrays)):
        first = arrays[f, START] // GROUP
        for k in range(signed(user[arrays[f, COUNT]])):
            words[first + k] = items[packed[at]]
            at += 1
    return after
