"""The catalog in memory: one row an item, columns as arrays, found by the item's 64-bit hash.

Every worker holds one, filled from the whole ``catalog`` topic. Scoring, rules and content
similarity read its arrays; nobody but the follower of the topic writes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.arena import Arena, grown
from stream_app.core.hash_index import HashIndex
from stream_app.core.words import Vocabulary
from stream_app.errors import EventRejected
from stream_app.hashing import short_hash, stable_hash

AVAILABLE, HIDDEN, DELETED, EMBEDDED = 1, 2, 4, 8  # bits of ``flags``
LISTED = np.array([(bits & (AVAILABLE | HIDDEN | DELETED)) == AVAILABLE for bits in range(256)])
LABELS_MAX = 64
TEXT_CHARS_MAX = 1_000
EMBEDDING_MAX = 4_096  # dimensions
NAN = float("nan")
_SEPARATORS = str.maketrans("\x1d\x1e\x1f", "   ")


@dataclass(frozen=True, slots=True)
class CatalogItem:
    """An item as its shop describes it. ``None`` is unknown; ``ts`` is when it was said.

    ``category`` is the path from the top, ``stock`` in pieces, ``margin`` a share of the price,
    ``added_ts`` when the shop began to sell it (unix seconds).
    """

    item_id: str
    title: str = ""
    category: tuple[str, ...] = ()
    brand: str = ""
    price: float | None = None
    currency: str = ""
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    available: bool = True
    hidden: bool = False
    stock: float | None = None
    margin: float | None = None
    embedding: tuple[float, ...] | None = None
    added_ts: float | None = None
    ts: float = 0.0


class Texts(NamedTuple):
    """What people read about an item."""

    title: str = ""
    category: tuple[str, ...] = ()
    brand: str = ""
    currency: str = ""
    tags: tuple[str, ...] = ()
    item_id: str = ""


class CatalogView(NamedTuple):
    """Arrays for kernels: ``row = find(keys, slots, id)``, -1 for an item not in the catalog."""

    keys: NDArray[np.uint64]
    slots: NDArray[np.int32]
    flags: NDArray[np.uint8]
    price: NDArray[np.float32]
    stock: NDArray[np.float32]
    margin: NDArray[np.float32]
    added_ts: NDArray[np.float64]
    category: NDArray[np.uint32]
    category_top: NDArray[np.uint32]
    brand: NDArray[np.uint32]


def labels_of(item: CatalogItem) -> list[str]:
    """What rules can say about an item, as ``name=value`` texts; a category with all its parents.

    >>> labels_of(CatalogItem("a", category=("Men", "Shoes"), tags=("new",), brand="Acme"))
    ['brand=Acme', 'category=Men', 'category=Men/Shoes', 'tag=new']
    """
    found = [f"brand={item.brand}"] if item.brand else []
    found += ["category=" + "/".join(item.category[: n + 1]) for n in range(len(item.category))]
    found += [f"tag={tag}" for tag in item.tags]
    for name, value in item.attributes.items():
        found += [f"{name}={one}" for one in _several(value)]
    return found[:LABELS_MAX]


_COLUMNS: dict[str, type[np.generic]] = {
    "ids": np.uint64,
    "flags": np.uint8,
    "price": np.float32,
    "stock": np.float32,
    "margin": np.float32,
    "added_ts": np.float64,
    "category": np.uint32,
    "category_top": np.uint32,
    "brand": np.uint32,
    "changed": np.int64,
}


class Catalog:
    """Columns by row, valid below ``rows_n``; rows keep their number while their item lives.

    ``version`` rises with every change, ``changed`` holds the version of a row's last one. A
    deleted item keeps its row, flagged ``DELETED``, until the room is needed: it must not be
    listed, while an item that was never in the catalog may be. ``refused`` counts new items that
    found no room among ``items_max``.
    """

    ids: NDArray[np.uint64]  # 0 for a row that is free
    flags: NDArray[np.uint8]
    price: NDArray[np.float32]  # NaN unknown, as stock and margin
    stock: NDArray[np.float32]
    margin: NDArray[np.float32]
    added_ts: NDArray[np.float64]  # unix seconds, 0 unknown
    category: NDArray[np.uint32]  # hash of the whole path, 0 none
    category_top: NDArray[np.uint32]  # of its first part
    brand: NDArray[np.uint32]
    changed: NDArray[np.int64]

    def __init__(self, *, items_max: int) -> None:
        assert items_max > 0
        self.items_max = items_max
        self.version = 0
        self.refused = 0
        self.rows_n = 0
        self.embeddings: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self.tokens_of = Arena(np.uint32)  # hashes of title, category, brand and tag words
        self.labels = Arena(np.uint32)  # hashes of labels_of()
        self._texts = Arena(np.uint8)
        self._vocabulary = Vocabulary()
        self._free: list[int] = []
        for name, dtype in _COLUMNS.items():
            setattr(self, name, np.zeros(64, dtype))
        self._index = HashIndex()

    # -- reading -----------------------------------------------------------------------------

    def __len__(self) -> int:
        """Items in the catalog, without the deleted ones."""
        live = (self.ids[: self.rows_n] != 0) & (self.flags[: self.rows_n] & DELETED == 0)
        return int(live.sum())

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``(n,)`` rows of ``(n,)`` item hashes, -1 where the catalog does not know the item."""
        return self._index.rows(ids)

    def listed(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of ``(n,)`` items may be in a list; those the catalog does not know may."""
        rows = self.rows(ids)
        listed: NDArray[np.bool_] = (rows < 0) | LISTED[self.flags[rows]]
        return listed

    @property
    def keys(self) -> NDArray[np.uint64]:
        """For ``find`` in kernels, with :attr:`slots`; a later change may replace them."""
        return self._index.keys

    @property
    def slots(self) -> NDArray[np.int32]:
        """See :attr:`keys`."""
        return self._index.slots

    def view(self) -> CatalogView:
        """The arrays as they are now; a later change may replace them."""
        return CatalogView(
            self._index.keys,
            self._index.slots,
            *(getattr(self, name) for name in CatalogView._fields[2:]),
        )

    def tokens(self, row: int) -> NDArray[np.uint32]:
        """Hashes of the distinct words of an item."""
        return self.tokens_of.get(row)

    def texts(self, row: int) -> Texts:
        """Title, category path, brand, currency, tags and id of an item; empty when deleted."""
        parts = self._texts.get(row).tobytes().decode("utf-8", "surrogatepass").split("\x1e")
        if len(parts) < len(Texts._fields):
            return Texts()
        title, category, brand, currency, tags, item_id = parts
        return Texts(title, _split(category), brand, currency, _split(tags), item_id)

    def changed_since(self, version: int) -> NDArray[np.int64]:
        """Rows changed after ``version``, ascending."""
        return np.flatnonzero(self.changed[: self.rows_n] > version)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by the arrays."""
        columns = sum(int(getattr(self, name).nbytes) for name in _COLUMNS)
        arenas = self.tokens_of.nbytes + self.labels.nbytes + self._texts.nbytes
        return columns + arenas + self._index.nbytes + self.embeddings.nbytes

    # -- writing -----------------------------------------------------------------------------

    def problem(self, item: CatalogItem, dimensions: int = 0) -> str | None:
        """Why ``item`` cannot be taken in, naming it; ``None`` when it can.

        ``dimensions`` are those of embeddings while the catalog has none yet, 0 = free.
        """
        if item.embedding is None:
            return None
        found, wanted = len(item.embedding), self.embeddings.shape[1] or dimensions
        if not 0 < found <= EMBEDDING_MAX:
            return f"item {item.item_id!r}: an embedding has 1 to {EMBEDDING_MAX} numbers"
        if wanted and found != wanted:
            return f"item {item.item_id!r}: its embedding has {found} numbers, others {wanted}"
        if not np.isfinite(np.array(item.embedding, np.float32)).all():
            return f"item {item.item_id!r}: its embedding has a number that is not finite"
        return None

    def upsert(self, items: Sequence[CatalogItem]) -> NDArray[np.int64]:
        """Insert or replace items, the last of equal ids; ``(n,)`` rows of those, -1 if refused.

        Raises :class:`~stream_app.errors.EventRejected` naming the item whose embedding does not
        fit the first one's dimension; nothing has changed then.
        """
        latest = list({item.item_id: item for item in items}.values())
        first = next((item.embedding for item in latest if item.embedding), ())
        for item in latest:
            problem = self.problem(item, len(first))
            if problem is not None:
                raise EventRejected("bad_embedding", problem)
        if first and not self.embeddings.shape[1]:
            self.embeddings = np.zeros((len(self.ids), len(first)), np.float32)
        ids = np.array([stable_hash(item.item_id) for item in latest], np.uint64)
        rows = self._ensure(ids)
        kept = np.flatnonzero(rows >= 0)
        self.refused += len(rows) - len(kept)
        if len(kept):
            self.version += 1
            self._write(rows[kept], [latest[k] for k in kept.tolist()])
        return rows

    def delete(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Mark items as deleted, also ones never heard of; ``(m,)`` rows that changed."""
        rows = self._ensure(np.unique(ids[ids != 0]))
        rows = rows[rows >= 0]
        rows = np.asarray(rows[self.flags[rows] & DELETED == 0], np.int64)
        if len(rows):
            self.version += 1
            self._blank(rows)
            self.flags[rows] = DELETED
            self.changed[rows] = self.version
        return rows

    def _write(self, rows: NDArray[np.int64], items: Sequence[CatalogItem]) -> None:
        of = self._vocabulary.of
        self.flags[rows] = [
            AVAILABLE * (item.available and (item.stock is None or item.stock > 0.0))
            | HIDDEN * item.hidden
            | EMBEDDED * (item.embedding is not None)
            for item in items
        ]
        for name in ("price", "stock", "margin"):
            values = [getattr(item, name) for item in items]
            getattr(self, name)[rows] = [NAN if value is None else value for value in values]
        before = self.added_ts[rows].tolist()
        self.added_ts[rows] = [
            (was or item.ts) if item.added_ts is None else item.added_ts
            for was, item in zip(before, items, strict=True)
        ]
        self.category[rows] = [of("/".join(i.category)) if i.category else 0 for i in items]
        self.category_top[rows] = [of(item.category[0]) if item.category else 0 for item in items]
        self.brand[rows] = [of(item.brand) if item.brand else 0 for item in items]
        self.changed[rows] = self.version
        words = [
            self._vocabulary.hashes((item.title, *item.category, item.brand, *item.tags))
            for item in items
        ]
        _put(self.tokens_of, rows, words)
        _put(self.labels, rows, [[of(label) for label in labels_of(item)] for item in items])
        _put(self._texts, rows, [_packed(item) for item in items])
        for row, item in zip(rows.tolist(), items, strict=True):
            if item.embedding is not None:
                self.embeddings[row] = item.embedding

    def _blank(self, rows: NDArray[np.int64]) -> None:
        nothing: list[list[int]] = [[] for _ in rows]
        for arena in (self.tokens_of, self.labels, self._texts):
            _put(arena, rows, nothing)
        for name in ("category", "category_top", "brand", "added_ts"):
            getattr(self, name)[rows] = 0
        for name in ("price", "stock", "margin"):
            getattr(self, name)[rows] = NAN

    # -- rows --------------------------------------------------------------------------------

    def _ensure(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of distinct ids, made where missing; -1 where there is no room."""
        rows = self.rows(ids)
        missing = np.flatnonzero(rows < 0)
        if not len(missing):
            return rows
        if self.rows_n + len(missing) > self.items_max + len(self._free):
            self._purge(keep=rows[rows >= 0])
        fresh = [self._free.pop() for _ in range(min(len(missing), len(self._free)))]
        more = min(len(missing) - len(fresh), self.items_max - self.rows_n)
        made = np.array([*fresh, *range(self.rows_n, self.rows_n + more)], np.int64)
        self.rows_n += more
        self._reserve(self.rows_n)
        missing = missing[: len(made)]
        self.ids[made] = ids[missing]
        self._blank(made)
        rows[missing] = made
        self._index.add(self.ids[made], made)
        return rows

    def _purge(self, keep: NDArray[np.int64]) -> None:
        """Free the rows of deleted items."""
        gone = np.flatnonzero(self.flags[: self.rows_n] & DELETED)
        gone = np.setdiff1d(gone, keep)
        self.ids[gone] = 0
        self.flags[gone] = 0
        self._free.extend(gone[::-1].tolist())
        self._index.rebuild(self.ids[: self.rows_n])

    def _reserve(self, rows: int) -> None:
        if rows <= len(self.ids):
            return
        size = max(rows, 2 * len(self.ids))
        for name in _COLUMNS:
            setattr(self, name, grown(getattr(self, name), size))
        if self.embeddings.shape[1]:
            self.embeddings = grown(self.embeddings, size)


def brand_hash(brand: str) -> int:
    """The value of column ``brand``; of ``category`` for ``"/".join(path)``."""
    return short_hash(brand)


def _packed(item: CatalogItem) -> NDArray[np.uint8]:
    parts = (item.title, item.category, item.brand, item.currency, item.tags, item.item_id)
    clean = [
        "\x1f".join(part[:TEXT_CHARS_MAX].translate(_SEPARATORS) for part in _several(value))
        for value in parts
    ]
    return np.frombuffer("\x1e".join(clean).encode("utf-8", "surrogatepass"), np.uint8)


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("\x1f")) if text else ()


def _put(arena: Arena, rows: NDArray[np.int64], values: Sequence[Any]) -> None:
    counts = np.array([len(value) for value in values], np.int64)
    joined = [value for value in values if len(value)]
    data = np.concatenate(joined) if joined else np.zeros(0, arena.data.dtype)
    arena.put(rows, data, counts)
