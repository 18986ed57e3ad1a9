"""Which items of the catalog a search means: TF-IDF over the inverted index of content.

Cosine of the query's and the item's words (Salton & Buckley 1988), times the share of the query's
weight that the item has, as search engines coordinate words. Rare words are looked up first, and at
most ``WALK_MAX`` entries in all, the newest of each word. Called by
:mod:`stream_app.core.content`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.inverted import WALK_MAX, Postings
from stream_app.core.item_index import find
from stream_app.core.jit import allocating, kernel, signed
from stream_app.core.model import QUERY_MAX

MATCHES_MAX = 64  # items of one search that are ranked for the customer


@kernel
def _words(p: Postings, query: NDArray[np.uint32], order: NDArray[np.int64]) -> int:
    """Numbers of the query's words that any item has, each once, rarest first."""
    m = 0
    for q in range(len(query)):
        key: Any = np.uint64(query[q])
        word = find(p.keys, p.slots, key)
        known = word >= 0 and p.uses[word] > 0
        for k in range(m):
            known = known and order[k] != word
        if not known:
            continue
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
    return m


@allocating
def find_matches(
    p: Postings,
    weight: NDArray[np.float64],
    length: NDArray[np.float64],
    ids: NDArray[np.uint64],
    flags: NDArray[np.uint8],
    listed: NDArray[np.bool_],
    queries: NDArray[np.uint32],
    counts: NDArray[np.uint8],
    gained: NDArray[np.float64],
    found: NDArray[np.int32],
    rows: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Fill ``rows``, ``values (n, k)`` with what ``queries (n, words)`` mean, the best first.

    Ties go by id. ``weight (words,)`` is idf squared; by row of the catalog: ``length`` of the
    vectors, ``flags`` (``listed`` says which may be shown), and the work space ``gained``, zero
    before and after. Of ``queries`` the first ``counts`` words count. ``rows`` are -1 before.
    """
    order = np.zeros(QUERY_MAX, np.int64)
    links = p.word.shape[1]
    after = p.after.ravel()
    size = rows.shape[1]
    for i in range(len(queries)):
        m = _words(p, queries[i, : signed(counts[i])], order)
        whole, n, steps = 0.0, 0, 0
        for k in range(m):
            w = weight[order[k]]
            whole += w
            link = signed(p.head[order[k]])
            while link >= 0 and steps < WALK_MAX:
                row = link // links
                if gained[row] == 0.0:
                    found[n] = row
                    n += 1
                gained[row] += w
                link = signed(after[link])
                steps += 1
        m = 0
        for k in range(n):
            row = found[k]
            got = gained[row]
            gained[row] = 0.0
            if not listed[flags[row]] or length[row] <= 0.0:
                continue
            v = np.float32(got / (length[row] * np.sqrt(whole)) * (got / whole))
            if m == size and (
                v < values[i, m - 1] or (v == values[i, m - 1] and ids[row] > ids[rows[i, m - 1]])
            ):
                continue
            if m == size:
                m -= 1
            at = m
            while at > 0 and (
                values[i, at - 1] < v
                or (values[i, at - 1] == v and ids[rows[i, at - 1]] > ids[row])
            ):
                rows[i, at], values[i, at] = rows[i, at - 1], values[i, at - 1]
                at -= 1
            rows[i, at], values[i, at] = row, v
            m += 1
