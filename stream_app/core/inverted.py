"""An inverted index over the catalog: which items share a word, newest first, in linked lists.

Entering and leaving are O(1) per word, so the index follows every catalog record. Used by
:mod:`stream_app.core.content`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.item_index import find
from stream_app.core.jit import allocating, kernel, signed

WORDS_MAX = 24  # words of an item that are compared; titles are shorter
BANDS = 8  # of signs of an embedding's projections
LINKS = WORDS_MAX + BANDS
WALK_MAX = 4_096  # entries looked at for one item's words, and again for its bands


class Postings(NamedTuple):
    """The inverted index. Link ``row * links + j`` is the ``j``-th word or band of an item."""

    keys: NDArray[np.uint64]  # open addressing from the hash of a word to its number
    slots: NDArray[np.int32]
    word_key: NDArray[np.uint64]  # (words,)
    uses: NDArray[np.int32]  # (words,) items that have the word
    head: NDArray[np.int32]  # (words,) the newest link, -1 none
    word: NDArray[np.int32]  # (rows, links) numbers of words, -1 none; bands from WORDS_MAX on
    after: NDArray[np.int32]  # (rows, links) the next older link of the same word
    before: NDArray[np.int32]


@allocating
def _unlink(p: Postings, row: int) -> None:
    links = p.word.shape[1]
    after, before = p.after.ravel(), p.before.ravel()
    for j in range(links):
        word = p.word[row, j]
        if word < 0:
            continue
        link = row * links + j
        if before[link] >= 0:
            after[before[link]] = after[link]
        else:
            p.head[word] = after[link]
        if after[link] >= 0:
            before[after[link]] = before[link]
        p.uses[word] -= 1
        p.word[row, j] = -1


@allocating
def _link(p: Postings, words_n: int, row: int, j: int, key: Any) -> int:
    """Enter one word of an item; returns the new number of words."""
    word = find(p.keys, p.slots, key)
    if word < 0:
        word = words_n
        words_n += 1
        mask = np.uint64(len(p.keys) - 1)
        at = key & mask
        while p.slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        p.keys[at], p.slots[at] = key, word
        p.word_key[word], p.uses[word], p.head[word] = key, 0, -1
    after, before = p.after.ravel(), p.before.ravel()
    link = row * p.word.shape[1] + j
    old = p.head[word]
    after[link], before[link] = old, -1
    if old >= 0:
        before[old] = link
    p.head[word] = link
    p.word[row, j] = word
    p.uses[word] += 1
    return words_n


@kernel
def relink(
    p: Postings,
    words_n: int,
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int32],
    words: NDArray[np.uint32],
    banded: NDArray[np.bool_],
    bands: NDArray[np.uint64],
) -> int:
    """Enter the ``rows`` as they are now described; returns the new number of words."""
    for i in range(len(rows)):
        row = rows[i]
        _unlink(p, row)
        for j in range(min(signed(counts[row]), WORDS_MAX)):
            words_n = _link(p, words_n, row, j, np.uint64(words[starts[row] + j]))
        if banded[i]:
            for b in range(BANDS):
                words_n = _link(p, words_n, row, WORDS_MAX + b, bands[i, b])
    return words_n


@allocating
def walk(
    p: Postings, row: int, first: int, end: int, seen: NDArray[np.int32], found: NDArray[np.int32]
) -> int:
    """Rows, each once, that share one of the links ``first`` to ``end``; rarest come first."""
    links = p.word.shape[1]
    after = p.after.ravel()
    order = np.full(end - first, -1, np.int64)
    m = 0
    for j in range(first, end):
        word = p.word[row, j]
        if word >= 0:
            at = m
            while at > 0 and (
                p.uses[order[at - 1]] > p.uses[word]
                or (
                    p.uses[order[at - 1]] == p.uses[word]
                    and p.word_key[order[at - 1]] > p.word_key[word]
                )
            ):
                order[at] = order[at - 1]
                at -= 1
            order[at] = word
            m += 1
    n, steps = 0, 0
    for k in range(m):
        link = signed(p.head[order[k]])
        while link >= 0 and steps < WALK_MAX:
            other = link // links
            if seen[other] == 0:
                seen[other] = 1
                found[n] = other
                n += 1
            link = signed(after[link])
            steps += 1
    return n


@kernel
def enter(keys: NDArray[np.uint64], slots: NDArray[np.int32], words: NDArray[np.uint64]) -> None:
    mask = np.uint64(len(keys) - 1)
    for k in range(len(words)):
        at = words[k] & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        keys[at], slots[at] = words[k], k


def new_postings(rows: int, words: int) -> Postings:
    """Empty arrays for ``rows`` items and ``words`` words, a power of two."""
    return Postings(
        np.zeros(2 * words, np.uint64),
        np.full(2 * words, -1, np.int32),
        np.zeros(words, np.uint64),
        np.zeros(words, np.int32),
        np.full(words, -1, np.int32),
        np.full((rows, LINKS), -1, np.int32),
        np.full((rows, LINKS), -1, np.int32),
        np.full((rows, LINKS), -1, np.int32),
    )


def without_unused(p: Postings, words_n: int, more: int) -> tuple[Postings, int]:
    """The same index with room for ``more`` words, without those no item has; and its words."""
    kept = np.flatnonzero(p.uses[:words_n] > 0)
    renumbered = np.full(words_n + 1, -1, np.int32)  # -1, no word, takes the last entry
    renumbered[kept] = np.arange(len(kept))
    fresh = new_postings(0, 1 << int(np.ceil(np.log2(2 * (len(kept) + more)))))
    for name in ("word_key", "uses", "head"):
        getattr(fresh, name)[: len(kept)] = getattr(p, name)[kept]
    enter(fresh.keys, fresh.slots, fresh.word_key[: len(kept)])
    fresh = fresh._replace(word=renumbered[p.word], after=p.after, before=p.before)
    return fresh, len(kept)
