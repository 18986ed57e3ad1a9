"""Item tables: decayed masses, popularity and bounded neighbour tables, by a 64-bit item id.

One instance per worker holds the tables of the item partitions it owns, where it is the only
writer, and a bounded cache of the others, which LEARN reads.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.core.item_index import NODE, ensure_ids, lookup_ids, reinsert_all, select_stale
from stream_app.core.item_names import ItemNames
from stream_app.core.jit import kernel, one_layout
from stream_app.core.landmarks import (
    GROWTH_STEPS_MAX,
    factor_of,
    factors_of,
    growth_of,
    landmark_of,
    ranges,
)
from stream_app.core.model import LANDMARK_HALF_LIVES, Model
from stream_app.core.neighbourhood import FAN, FANS_MAX
from stream_app.core.raw import picked, zeroed
from stream_app.errors import SchemaUnknown

ITEM_SCHEMA = 2
_SCHEMA_WITHOUT_FANS = 1  # reads as one whose number of fans is 0
UNKNOWN = -1

# All fields of the blob stand on 8-byte bounds, so that a run of blobs reads as one array.
ITEM = np.dtype(
    [
        ("schema", "u1"),
        ("fans_n", "u1"),
        ("neighbours_n", "u2"),
        ("name_bytes", "u2"),
        ("padding", "u2"),
        ("pair_landmark", "i4"),
        ("popularity_landmark", "i4"),
        ("mass", "f8"),
        ("out", "f8"),
        ("repeats", "f8"),
        ("found", "f8"),
        ("popularity", "f8"),
    ]
)
NEIGHBOUR = np.dtype([("id", "u8"), ("forward", "f4"), ("backward", "f4")])
_PAIR_SUMS = ("mass", "out", "repeats", "found")  # decayed with the half-life of pairs
_BY_ROW = (
    *("neighbour", "forward", "backward", "filled", "row_node", "row_used"),
    *("fans", "fans_n"),
)
_HEADER_WORDS = ITEM.itemsize // 8
_ENTRY_WORDS = NEIGHBOUR.itemsize // 8


@kernel
def _unpack(
    words: NDArray[np.uint64],
    halves: NDArray[np.float32],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    factors: NDArray[np.float32],
    target: NDArray[np.int64],
    neighbour_nodes: NDArray[np.int64],
    nodes: NDArray[np.void],
    neighbour: NDArray[np.int32],
    forward: NDArray[np.float32],
    backward: NDArray[np.float32],
    filled: NDArray[np.int32],
) -> None:
    """Neighbour tables of loaded blobs into the rows of their nodes."""
    at = 0
    for b in range(len(starts)):
        row = nodes[target[b]].row
        for k in range(counts[b]):
            word = starts[b] + _HEADER_WORDS + k * _ENTRY_WORDS
            neighbour[row, k] = neighbour_nodes[at]
            forward[row, k] = halves[2 * word + 2] * factors[b]
            backward[row, k] = halves[2 * word + 3] * factors[b]
            at += 1
        filled[row] = counts[b]


class ItemTables:
    """Arrays that grow by doubling; ``rows_max`` neighbour tables and ``nodes_max`` items at most.

    All decayed values are relative to one landmark per half-life, moved in whole steps of 16
    half-lives, so that moving it multiplies by a power of two and loses no bit.
    """

    def __init__(self, model: Model, *, rows_max: int, nodes_max: int) -> None:
        assert 0 < rows_max <= nodes_max
        self.model = model
        self.rows_max = rows_max
        self.nodes_max = nodes_max
        self.pair_landmark = 0
        self.popularity_landmark = 0
        self.tick = 0
        self.generation = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything, as after losing ownership or when ``nodes_max`` is reached.

        ``generation`` rises: node numbers kept from before mean nothing any more.
        """
        self.generation += 1
        width = self.model.neighbours_max
        self.nodes = np.zeros(1024, NODE)
        self.nodes_n = 0
        self.names = ItemNames()
        self.keys = np.zeros(2048, np.uint64)
        self.slots = np.full(2048, -1, np.int32)
        self.neighbour = np.zeros((256, width), np.int32)
        self.forward = np.zeros((256, width), np.float32)
        self.backward = np.zeros((256, width), np.float32)
        self.filled = np.zeros(256, np.int32)
        self.fans = np.zeros((256, FANS_MAX), FAN)
        self.fans_n = np.zeros(256, np.uint8)
        self.row_node = np.full(256, -1, np.int64)
        self.row_used = np.zeros(256, np.int64)
        self.free_rows = list(range(255, -1, -1))

    # -- landmarks ---------------------------------------------------------------------------

    def advance(self, ts: float) -> None:
        """Move the landmarks so that ``ts`` lies within one step after them."""
        self._move(
            landmark_of(ts, self.model.pair_half_life_s),
            landmark_of(ts, self.model.popularity_half_life_s),
        )

    def _move(self, pair: int, popularity: int) -> None:
        if pair > self.pair_landmark:
            factor = factor_of(self.pair_landmark - pair)
            for name in _PAIR_SUMS:
                self.nodes[name] *= factor
            self.forward *= np.float32(factor)
            self.backward *= np.float32(factor)
            self.pair_landmark = pair
        if popularity > self.popularity_landmark:
            self.nodes["popularity"] *= factor_of(self.popularity_landmark - popularity)
            self.popularity_landmark = popularity

    def growth(self, ts: float) -> float:
        """What a weight of one at ``ts`` counts in the units of masses and neighbour tables."""
        return growth_of(ts, self.pair_landmark, self.model.pair_half_life_s)

    def growths(self, ts: NDArray[np.float64]) -> NDArray[np.float64]:
        """:meth:`growth` of ``(n,)`` times."""
        steps = ts / self.model.pair_half_life_s - LANDMARK_HALF_LIVES * self.pair_landmark
        return np.exp2(np.minimum(steps, GROWTH_STEPS_MAX))

    def popularity_growth(self, ts: float) -> float:
        """What a weight of one at ``ts`` counts in the units of popularity."""
        return growth_of(ts, self.popularity_landmark, self.model.popularity_half_life_s)

    # -- nodes and rows ----------------------------------------------------------------------

    def ensure(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``(n,)`` nodes of ``(n,)`` ids, new ones unknown; 0 gives -1."""
        self._reserve_nodes(len(ids))
        out = np.empty(len(ids), np.int64)
        self.nodes_n = ensure_ids(self.keys, self.slots, self.nodes, self.nodes_n, ids, out)
        self.names.reserve(self.nodes_n)
        return out

    def lookup(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``(n,)`` nodes of ``(n,)`` ids, -1 where there is none."""
        out = np.empty(len(ids), np.int64)
        lookup_ids(self.keys, self.slots, one_layout(ids), out)
        return out

    def full(self) -> bool:
        """Whether the next batch should start from an empty cache."""
        return self.nodes_n >= self.nodes_max

    def _reserve_nodes(self, more: int) -> None:
        need = self.nodes_n + more
        if need > len(self.nodes):
            grown = np.zeros(max(need, 2 * len(self.nodes)), NODE)
            grown[: self.nodes_n] = self.nodes[: self.nodes_n]
            self.nodes = grown
        if 2 * need > len(self.keys):
            size = 1 << int(np.ceil(np.log2(4 * need)))
            self.keys = np.zeros(size, np.uint64)
            self.slots = np.full(size, -1, np.int32)
            reinsert_all(self.keys, self.slots, self.nodes, self.nodes_n)

    def ensure_rows(self, nodes: NDArray[np.int64]) -> None:
        """Give each of the distinct ``nodes`` a neighbour table, evicting those unused longest."""
        self.tick += 1
        rows = self.nodes["row"]
        have = nodes[rows[nodes] >= 0]
        self.row_used[rows[have]] = self.tick
        missing = nodes[rows[nodes] < 0]
        while len(self.free_rows) < len(missing):
            if len(self.filled) < self.rows_max or not self._evict(len(missing)):
                self._grow_rows(len(missing))
        for node in missing.tolist():
            row = self.free_rows.pop()
            rows[node] = row
            self.row_node[row] = node
            self.row_used[row] = self.tick
            self.filled[row] = 0
            self.fans_n[row] = 0

    def _grow_rows(self, more: int) -> None:
        old = len(self.filled)
        new = max(2 * old, old + more)
        for name in _BY_ROW:
            array = getattr(self, name)
            grown = np.zeros((new, *array.shape[1:]), array.dtype)
            grown[:old] = array
            setattr(self, name, grown)
        self.row_node[old:] = -1
        self.free_rows.extend(range(new - 1, old - 1, -1))

    def _evict(self, wanted: int) -> int:
        """Drop the tables not used in this step, oldest first; they are read again when needed."""
        candidates = np.flatnonzero((self.row_node >= 0) & (self.row_used < self.tick))
        count = min(len(candidates), max(wanted, self.rows_max // 8))
        if not count:
            return 0
        oldest = candidates[np.argsort(self.row_used[candidates], kind="stable")[:count]]
        nodes = self.row_node[oldest]
        self.nodes["row"][nodes] = -1
        self.nodes["authority"][nodes] = 0
        self.nodes["loaded_at"][nodes] = -np.inf
        self.row_node[oldest] = -1
        self.free_rows.extend(oldest.tolist())
        return count

    def forget(self, partition: int, partitions: int) -> None:
        """Read every item of ``partition`` again before its next use."""
        ids = self.nodes["id"][: self.nodes_n]
        mine = np.flatnonzero(ids % np.uint64(partitions) == partition)
        self.nodes["authority"][mine] = 0
        self.nodes["loaded_at"][mine] = -np.inf

    def stale(self, ids: NDArray[np.uint64], *, before: float) -> NDArray[np.uint64]:
        """Which of ``ids`` LEARN has to read: neither ours nor read since ``before``; each once.

        ``ids`` may repeat and hold zeros, which stand for no item.
        """
        out = np.empty(len(ids), np.uint64)
        n = select_stale(self.keys, self.slots, self.nodes, ids, before, out)
        return np.unique(out[:n]) if n else out[:0]

    def unknown_neighbours(self, nodes: NDArray[np.int64], *, limit: int) -> NDArray[np.uint64]:
        """Ids, at most ``limit``, in the tables of ``nodes`` whose masses are not known yet."""
        rows = self.nodes["row"][nodes]
        rows = rows[rows >= 0]
        counts = self.filled[rows].astype(np.int64)
        found = np.unique(self.neighbour[np.repeat(rows, counts), ranges(counts)])
        unknown = found[self.nodes["known"][found] == 0][:limit]
        ids: NDArray[np.uint64] = self.nodes["id"][unknown]
        return ids

    def set_names(self, ids: NDArray[np.uint64], names: Sequence[str]) -> None:
        """Remember the texts of item ids, which may repeat; 0 stands for no item."""
        nodes = self.ensure(ids)
        for k in np.flatnonzero((nodes >= 0) & (self.names.sizes[nodes] == 0)).tolist():
            self.names.set(int(nodes[k]), names[k])

    # -- blobs -------------------------------------------------------------------------------

    def decode(
        self, nodes: NDArray[np.int64], blobs: Sequence[bytes | None], *, now: float
    ) -> None:
        """Fill ``nodes`` from their blobs; ``None`` means without state; ``now`` dates them."""
        self.ensure_rows(nodes)
        present = [(node, blob) for node, blob in zip(nodes.tolist(), blobs, strict=True) if blob]
        absent = np.array(
            [node for node, blob in zip(nodes.tolist(), blobs, strict=True) if not blob], np.int64
        )
        for name in (*_PAIR_SUMS, "popularity"):
            self.nodes[name][absent] = 0.0
        self.filled[self.nodes["row"][absent]] = 0
        self.fans_n[self.nodes["row"][absent]] = 0
        self.nodes["known"][nodes] = 1
        self.nodes["loaded_at"][nodes] = now
        if present:
            self._decode_present(
                np.array([node for node, _ in present], np.int64), [blob for _, blob in present]
            )

    def _decode_present(self, nodes: NDArray[np.int64], blobs: list[bytes]) -> None:
        buffer = b"".join(blobs)
        words = np.frombuffer(buffer, np.uint64)
        sizes = np.array([len(blob) for blob in blobs], np.int64)
        starts = (np.cumsum(sizes) - sizes) // 8
        header = np.frombuffer(b"".join([blob[: ITEM.itemsize] for blob in blobs]), ITEM)
        if not np.isin(header["schema"], (_SCHEMA_WITHOUT_FANS, ITEM_SCHEMA)).all():
            raise SchemaUnknown(
                f"item state has schemas {sorted(set(header['schema'].tolist()))}, this release"
                f" reads {ITEM_SCHEMA}: run the release that wrote it, or newer"
            )
        # Blobs of the future move our landmarks; older ones are rescaled, exactly.
        self._move(int(header["pair_landmark"].max()), int(header["popularity_landmark"].max()))
        factor = factors_of(header["pair_landmark"] - self.pair_landmark)
        for name in _PAIR_SUMS:
            self.nodes[name][nodes] = header[name] * factor
        self.nodes["popularity"][nodes] = header["popularity"] * factors_of(
            header["popularity_landmark"] - self.popularity_landmark
        )
        counts = np.minimum(header["neighbours_n"], self.model.neighbours_max).astype(np.int64)
        entry = np.repeat(starts + _HEADER_WORDS, counts) + _ENTRY_WORDS * ranges(counts)
        neighbour_nodes = self.ensure(words[entry])
        _unpack(
            words,
            words.view(np.float32),
            starts,
            counts,
            factor.astype(np.float32),
            nodes,
            neighbour_nodes,
            self.nodes,
            self.neighbour,
            self.forward,
            self.backward,
            self.filled,
        )
        self._decode_tails(nodes, blobs, header)

    def _decode_tails(
        self, nodes: NDArray[np.int64], blobs: list[bytes], header: NDArray[np.void]
    ) -> None:
        """What follows the neighbours: fans, and the item's id as text."""
        columns = ("neighbours_n", "fans_n", "name_bytes")
        rows = self.nodes["row"][nodes].tolist()
        for node, row, blob, n, fans_n, size in zip(
            nodes.tolist(), rows, blobs, *(header[name].tolist() for name in columns), strict=True
        ):
            at = ITEM.itemsize + n * NEIGHBOUR.itemsize
            kept = min(fans_n, FANS_MAX)
            self.fans_n[row] = kept
            if kept:
                self.fans[row, :kept] = np.frombuffer(blob, FAN, fans_n, at)[-kept:]
            if not self.names[node]:
                at += fans_n * FAN.itemsize
                self.names.set(node, blob[at : at + size].decode())

    def encode(self, nodes: NDArray[np.int64]) -> list[bytes]:
        """Blobs of ``nodes``, whose tables must be in memory."""
        node = picked(self.nodes, nodes)
        assert (node["row"] >= 0).all(), "encode needs the neighbour tables in memory"
        header = zeroed(len(nodes), ITEM)
        header["schema"] = ITEM_SCHEMA
        header["neighbours_n"] = self.filled[node["row"]]
        header["fans_n"] = self.fans_n[node["row"]]
        header["pair_landmark"] = self.pair_landmark
        header["popularity_landmark"] = self.popularity_landmark
        for name in (*_PAIR_SUMS, "popularity"):
            header[name] = node[name]
        names = [self.names[n].encode() for n in nodes.tolist()]
        header["name_bytes"] = [len(name) for name in names]
        counts = header["neighbours_n"].astype(np.int64)
        row = np.repeat(node["row"].astype(np.int64), counts)
        column = ranges(counts)
        entries = np.empty(len(row), NEIGHBOUR)
        entries["id"] = self.nodes["id"][self.neighbour[row, column]]
        entries["forward"] = self.forward[row, column]
        entries["backward"] = self.backward[row, column]
        places = np.arange(FANS_MAX)
        used = (FANS_MAX * node["row"].astype(np.int64)[:, None] + places)[
            places < header["fans_n"][:, None]
        ]
        fans = picked(self.fans.reshape(-1), used).tobytes()
        heads, body = header.tobytes(), entries.tobytes()
        blobs = []
        at, fan_at = 0, 0
        for k, (n, fans_n, text) in enumerate(
            zip(counts.tolist(), header["fans_n"].tolist(), names, strict=True)
        ):
            end = at + n * NEIGHBOUR.itemsize
            fan_end = fan_at + fans_n * FAN.itemsize
            head = heads[k * ITEM.itemsize : (k + 1) * ITEM.itemsize]
            padding = b"\0" * (-len(text) % 8)
            blobs.append(b"".join((head, body[at:end], fans[fan_at:fan_end], text, padding)))
            at, fan_at = end, fan_end
        return blobs
