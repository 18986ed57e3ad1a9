"""Content similarity: which items are described alike, also those that no event has named yet.

TF-IDF cosine over the catalog's words of title, category, brand and tags (Salton & Buckley 1988;
a word counts once per item, idf = ln((1 + N) / (1 + df)) + 1), averaged with the cosine of supplied
embeddings where both items have one, and reduced by how far their prices are apart. Document
frequencies follow every catalog record. Candidates come from an inverted index: linked lists of the
items that share a word, rarest words first, or a band of signs of the embedding's projections
(locality-sensitive hashing, Charikar 2002). Called by :mod:`stream_app.candidates`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.arena import grown
from stream_app.core.catalog import EMBEDDED, LISTED, Catalog
from stream_app.core.inverted import (
    BANDS,
    LINKS,
    WALK_MAX,
    WORDS_MAX,
    Postings,
    new_postings,
    relink,
    walk,
    without_unused,
)
from stream_app.core.jit import kernel, one_layout
from stream_app.core.matching import MATCHES_MAX, find_matches

NEIGHBOURS_MAX = 16  # content neighbours kept per item
BAND_BITS = 8
PRICE_SHARE = 0.2  # of the similarity, taken away as prices are far apart
_GOLDEN = 0x9E3779B97F4A7C15


class Described(NamedTuple):
    """What similarity is computed from, by row: lengths are 0 for what an item does not have."""

    weight: NDArray[np.float64]  # (words,) idf squared
    length: NDArray[np.float64]  # (rows,) of the TF-IDF vector
    price: NDArray[np.float32]
    embeddings: NDArray[np.float32]  # (rows, d)
    reach: NDArray[np.float64]  # (rows,) length of the embedding


class Nearest(NamedTuple):
    """Content neighbours ``(n, NEIGHBOURS_MAX)``: catalog rows, -1 none, and similarities."""

    rows: NDArray[np.int32]
    similarities: NDArray[np.float32]


@kernel
def _mix(value: Any, more: Any) -> Any:
    mixed = (np.uint64(value) ^ np.uint64(more)) * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


@kernel
def _fingerprints(
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int32],
    words: NDArray[np.uint32],
    price: NDArray[np.uint32],
    flags: NDArray[np.uint8],
    embeddings: NDArray[np.uint32],
    out: NDArray[np.uint64],
) -> None:
    """One number for all that similarity depends on: stock and availability are not part of it."""
    for i in range(len(rows)):
        row = rows[i]
        value = _mix(np.uint64(counts[row]), np.uint64(price[row]))
        for k in range(starts[row], starts[row] + counts[row]):
            value = _mix(value, np.uint64(words[k]))
        if flags[row] & EMBEDDED:
            for k in range(embeddings.shape[1]):
                value = _mix(value, np.uint64(embeddings[row, k]))
        out[i] = value


@kernel
def _lengths(word: NDArray[np.int32], weight: NDArray[np.float64], out: NDArray[np.float64]) -> int:
    """Lengths of all items' TF-IDF vectors."""
    for row in range(len(out)):
        total = 0.0
        for j in range(WORDS_MAX):
            if word[row, j] >= 0:
                total += weight[word[row, j]]
        out[row] = np.sqrt(total)
    return len(out)


@kernel
def similarity(p: Postings, d: Described, a: int, b: int, marked: NDArray[np.float64]) -> float:
    """Of two rows; ``marked`` holds the weights of the words of ``a``, 0 for all others."""
    text, parts, total = 0.0, 0, 0.0
    if d.length[a] > 0.0 and d.length[b] > 0.0:
        for j in range(WORDS_MAX):
            if p.word[b, j] >= 0:
                text += marked[p.word[b, j]]
        total += text / (d.length[a] * d.length[b])
        parts += 1
    if d.reach[a] > 0.0 and d.reach[b] > 0.0:
        dot = 0.0
        for k in range(d.embeddings.shape[1]):
            dot += np.float64(d.embeddings[a, k]) * np.float64(d.embeddings[b, k])
        total += max(dot, 0.0) / (d.reach[a] * d.reach[b])
        parts += 1
    if parts == 0 or total <= 0.0:
        return 0.0
    near = 1.0
    if d.price[a] > 0.0 and d.price[b] > 0.0:  # NaN is not
        cheaper, dearer = min(d.price[a], d.price[b]), max(d.price[a], d.price[b])
        near = 1.0 - PRICE_SHARE * (1.0 - np.float64(cheaper) / np.float64(dearer))
    return total / parts * near


@kernel
def find_nearest(
    p: Postings,
    d: Described,
    ids: NDArray[np.uint64],
    wanted: NDArray[np.int64],
    seen: NDArray[np.int32],
    found: NDArray[np.int32],
    marked: NDArray[np.float64],
    out: Nearest,
) -> None:
    """The most similar rows of each of ``wanted``, best first, ties by id, into ``out[wanted]``."""
    size = out.rows.shape[1]
    for i in range(len(wanted)):
        row = wanted[i]
        rows, values = out.rows[row], out.similarities[row]
        rows[:] = -1
        values[:] = 0.0
        seen[row] = 1
        n = walk(p, row, 0, WORDS_MAX, seen, found)
        n += walk(p, row, WORDS_MAX, LINKS, seen, found[n:])
        seen[row] = 0
        for j in range(WORDS_MAX):
            if p.word[row, j] >= 0:
                marked[p.word[row, j]] = d.weight[p.word[row, j]]
        m = 0
        for k in range(n):
            other = found[k]
            seen[other] = 0
            v = np.float32(similarity(p, d, row, other, marked))
            if v <= np.float32(0.0) or (m == size and v < values[m - 1]):
                continue
            if m == size:
                if v == values[m - 1] and ids[other] > ids[rows[m - 1]]:
                    continue
                m -= 1
            at = m
            while at > 0 and (
                values[at - 1] < v or (values[at - 1] == v and ids[rows[at - 1]] > ids[other])
            ):
                rows[at], values[at] = rows[at - 1], values[at - 1]
                at -= 1
            rows[at], values[at] = other, v
            m += 1
        for j in range(WORDS_MAX):
            if p.word[row, j] >= 0:
                marked[p.word[row, j]] = 0.0


class ContentIndex:
    """Follows one :class:`Catalog`; content neighbours are computed when first asked for.

    ``version`` rises when anything changes that similarity depends on, and what was computed before
    is computed again when next asked for. Exact as long as the words and bands of an item have
    fewer than ``WALK_MAX`` entries between them; of more, the rarest words' newest entries count.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.version = 0
        self._seen_version = 0
        self._prints = np.zeros(64, np.uint64)
        self._words_n = 0
        self._signs = np.zeros((0, BANDS * BAND_BITS), np.float32)
        self._reach = np.zeros(64)
        self._postings = new_postings(64, 1024)
        self._described: Described | None = None
        self._near = Nearest(
            np.full((64, NEIGHBOURS_MAX), -1, np.int32), np.zeros((64, NEIGHBOURS_MAX), np.float32)
        )
        self._near_version = np.zeros(64, np.int64)
        self._seen = np.zeros(64, np.int32)  # work space, zero between calls, like _marked
        self._found = np.zeros(2 * WALK_MAX, np.int32)
        self._marked = np.zeros(1024)
        self._gained = np.zeros(64)

    def sync(self) -> None:
        """Take in what changed in the catalog since the last call."""
        catalog = self.catalog
        if catalog.version == self._seen_version:
            return
        rows = catalog.changed_since(self._seen_version)
        self._seen_version = catalog.version
        self._reserve(catalog.rows_n)
        rows = rows[self._differ(rows)]
        if not len(rows):
            return
        self.version += 1
        self._described = None
        tokens = catalog.tokens_of
        banded = catalog.flags[rows] & EMBEDDED != 0
        bands = self._bands(rows, banded)
        more = int(np.minimum(tokens.counts[rows], WORDS_MAX).sum()) + BANDS * int(banded.sum())
        self._make_room(more)
        self._words_n = relink(
            self._postings,
            self._words_n,
            rows,
            tokens.starts,
            tokens.counts,
            tokens.data,
            banded,
            bands,
        )

    def nearest(self, rows: NDArray[np.int64], *, compute_max: int | None = None) -> Nearest:
        """Content neighbours of ``rows (n,)``, which may be -1 and then have none.

        At most ``compute_max`` items' neighbours are computed; the others' are as they were when
        they were computed last, or none.
        """
        known = np.unique(rows[(rows >= 0) & (rows < len(self._near_version))])
        due = known[self._near_version[known] < self.version][:compute_max]
        if len(due):
            described = self._describe()
            if len(self._marked) < len(described.weight):
                self._marked = np.zeros(2 * len(described.weight))
            find_nearest(
                self._postings,
                described,
                self.catalog.ids,
                due,
                self._seen,
                self._found,
                self._marked,
                self._near,
            )
            self._near_version[due] = self.version
        at = np.where((rows >= 0) & (rows < len(self._near_version)), rows, 0)
        missing = at != rows
        near = Nearest(self._near.rows[at], self._near.similarities[at])
        near.rows[missing], near.similarities[missing] = -1, 0.0
        return near

    def matching(self, queries: NDArray[np.uint32], counts: NDArray[np.uint8]) -> Nearest:
        """What searches for ``queries (n, QUERY_MAX)``, hashed words, mean: ``(n, MATCHES_MAX)``.

        Only items that may be listed. See :func:`~stream_app.core.matching.find_matches`.
        """
        n = len(queries)
        near = Nearest(
            np.full((n, MATCHES_MAX), -1, np.int32), np.zeros((n, MATCHES_MAX), np.float32)
        )
        described = self._describe()
        if len(self._gained) < len(described.length):
            self._gained = np.zeros(len(described.length))
        find_matches(
            self._postings,
            described.weight,
            described.length,
            self.catalog.ids,
            self.catalog.flags,
            LISTED,
            one_layout(queries),
            one_layout(counts),
            self._gained,
            self._found,
            *near,
        )
        return near

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by the arrays."""
        arrays = (*self._postings, *self._near, self._prints, self._reach, self._near_version)
        return sum(array.nbytes for array in arrays)

    # -- keeping up --------------------------------------------------------------------------

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._prints):
            return
        size = max(rows, 2 * len(self._prints))
        old = len(self._prints)
        for name in ("_prints", "_reach", "_near_version", "_seen"):
            setattr(self, name, grown(getattr(self, name), size))
        p = self._postings
        self._postings = p._replace(
            word=grown(p.word, size), after=grown(p.after, size), before=grown(p.before, size)
        )
        self._postings.word[old:] = -1
        near = Nearest(grown(self._near.rows, size), grown(self._near.similarities, size))
        near.rows[old:] = -1
        self._near = near

    def _differ(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of ``rows`` are not described as before."""
        catalog = self.catalog
        prints = np.empty(len(rows), np.uint64)
        _fingerprints(
            rows,
            catalog.tokens_of.starts,
            catalog.tokens_of.counts,
            catalog.tokens_of.data,
            catalog.price.view(np.uint32),
            catalog.flags,
            catalog.embeddings.view(np.uint32),
            prints,
        )
        differ: NDArray[np.bool_] = self._prints[rows] != prints
        self._prints[rows] = prints
        return differ

    def _bands(self, rows: NDArray[np.int64], banded: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """``(n, BANDS)`` keys of the signs of the embeddings' projections."""
        bands = np.zeros((len(rows), BANDS), np.uint64)
        self._reach[rows] = 0.0
        if banded.any():
            vectors = self.catalog.embeddings[rows[banded]]
            if len(self._signs) != vectors.shape[1]:
                self._signs = signs(vectors.shape[1])
            above = (vectors @ self._signs > 0).reshape(len(vectors), BANDS, BAND_BITS)
            number = above @ (1 << np.arange(BAND_BITS)) + (1 << BAND_BITS) * np.arange(BANDS)
            bands[banded] = (number + 1).astype(np.uint64) * np.uint64(_GOLDEN)
            self._reach[rows[banded]] = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return bands

    def _make_room(self, more: int) -> None:
        """Forget words that no item has any more when ``more`` new ones might not fit."""
        if self._words_n + more > len(self._postings.uses):
            self._postings, self._words_n = without_unused(self._postings, self._words_n, more)

    def _describe(self) -> Described:
        if self._described is None:
            uses = self._postings.uses[: max(self._words_n, 1)].astype(np.float64)
            items = np.count_nonzero(self._postings.word[:, 0] >= 0)
            weight = (np.log((1.0 + items) / (1.0 + uses)) + 1.0) ** 2
            length = np.zeros(len(self._prints))
            _lengths(self._postings.word, weight, length)
            self._described = Described(
                weight, length, self.catalog.price, self.catalog.embeddings, self._reach
            )
        # The catalog's arrays may have been replaced by longer ones since.
        self._described = self._described._replace(
            price=self.catalog.price, embeddings=self.catalog.embeddings
        )
        return self._described


def signs(dimensions: int) -> NDArray[np.float32]:
    """``(dimensions, BANDS * BAND_BITS)`` of 1 and -1, determined by their places alone."""
    place = np.arange(1, dimensions * BANDS * BAND_BITS + 1, dtype=np.uint64)
    mixed = place * np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    bits = (mixed >> np.uint64(40)) & np.uint64(1)
    return (2.0 * bits.astype(np.float32) - 1.0).reshape(dimensions, -1)
