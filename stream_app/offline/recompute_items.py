"""Recompute items from transitions: from end to end as sums, and in order with bounded tables.

:class:`Masses` needs no order and no bound: every customer's transitions, however partitions were
interleaved, add up to the same numbers. :class:`ItemPartition` follows one ``cooccurrence``
partition record by record, because which neighbours a full table gives up depends on the order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from stream_app.codec import Transitions
from stream_app.core.learn import TRANSITION
from stream_app.core.model import LANDMARK_HALF_LIVES, PREVIOUS_MAX, Model
from stream_app.core.tables import ITEM, NEIGHBOUR

_EXPONENT_MAX = 1_000  # of two, in a float
COUNTERS = ("mass", "out", "repeats", "popularity")


class Masses:
    """Sums over all transitions: what every item's counters must be, and every pair's weight.

    Keeps 72 bytes a transition, so memory grows with the log.
    """

    def __init__(self, model: Model | None = None) -> None:
        self.model = model or Model()
        self._parts: list[NDArray[np.void]] = []

    def add(self, transitions: NDArray[np.void]) -> None:
        """Add ``(n,) TRANSITION``."""
        assert transitions.dtype == TRANSITION
        self._parts.append(transitions)

    def sums(self) -> "Sums":
        """The sums, relative to the time of the latest transition."""
        rows = np.concatenate(self._parts) if self._parts else np.zeros(0, TRANSITION)
        ids = np.unique(np.concatenate((rows["item"], rows["previous"].ravel())))
        ids = ids[ids != 0]
        ts = float(rows["ts"].max(initial=0.0))
        growth = np.exp2((rows["ts"] - ts) / self.model.pair_half_life_s)
        young = np.exp2((rows["ts"] - ts) / self.model.popularity_half_life_s)
        n = len(ids)
        item = np.searchsorted(ids, rows["item"])
        gross = {name: np.zeros(n) for name in COUNTERS}
        net = {name: np.zeros(n) for name in COUNTERS}

        def count(name: str, who: NDArray[np.int64], what: NDArray[np.float64]) -> None:
            net[name] += np.bincount(who, what, n)
            gross[name] += np.bincount(who, np.abs(what), n)

        count("popularity", item, young * rows["weight"])
        pairs = []
        for d in range(PREVIOUS_MAX):
            there = rows["previous"][:, d] != 0
            before = np.searchsorted(ids, rows["previous"][there, d])
            after = item[there]
            what = growth[there] * rows["weight"][there] * (d + 1.0) ** -self.model.distance_power
            what *= (1.0 + rows["gap_s"][there, d] / self.model.pair_gap_s) ** -0.5
            other = before != after
            count("mass", before, what)
            count("mass", after[other], what[other])
            pairs.append((before, after, what))
            if d == 0:
                up = rows["weight"][there] > 0
                count("out", before[up], growth[there][up])
                same = up & ~other
                count("repeats", before[same], growth[there][same])
        coordinates = (
            np.concatenate([before for before, _, _ in pairs]),
            np.concatenate([after for _, after, _ in pairs]),
        )
        weights = np.concatenate([what for _, _, what in pairs])
        forward = coo_array((weights, coordinates), shape=(n, n)).tocsr()
        return Sums(self.model, ts, ids, net, gross, forward)


@dataclass(frozen=True, slots=True)
class Sums:
    """For ``ids`` ``(n,) uint64``, ascending, the counters by name ``(n,) float64`` as of ``ts``.

    ``gross`` sums absolute values: what a refund took back leaves rounding of that size.
    ``forward`` ``(n, n)`` holds how much item i went on to item j; who came from where is its
    transpose.
    """

    model: Model
    ts: float
    ids: NDArray[np.uint64]
    net: dict[str, NDArray[np.float64]]
    gross: dict[str, NDArray[np.float64]]
    forward: csr_array

    def errors(self, headers: NDArray[np.void], ids: NDArray[np.uint64]) -> NDArray[np.float64]:
        """``(n,)`` largest error of the counters in ``(n,) ITEM`` headers, relative to ``gross``.

        An item that nothing is known of here must have counters of zero; else its error is inf.
        """
        model = self.model
        at = np.minimum(np.searchsorted(self.ids, ids), max(len(self.ids) - 1, 0))
        known = self.ids[at] == ids if len(self.ids) else np.zeros(len(ids), bool)
        worst = np.zeros(len(ids))
        for name in COUNTERS:
            popular = name == "popularity"
            half_life_s = model.popularity_half_life_s if popular else model.pair_half_life_s
            landmark = headers["popularity_landmark" if popular else "pair_landmark"]
            shift = LANDMARK_HALF_LIVES * landmark - self.ts / half_life_s
            stored = headers[name] * np.exp2(shift)
            net = np.where(known, self.net[name][at] if len(self.ids) else 0.0, 0.0)
            gross = np.where(known, self.gross[name][at] if len(self.ids) else 0.0, 0.0)
            # Below this share of one event at ``ts`` nothing can be seen of an item any more.
            error = np.abs(stored - net) / np.maximum(gross, 1e-250)
            worst = np.maximum(worst, np.where(stored == net, 0.0, error))
        return worst


@dataclass(slots=True)
class Table:
    """One item of a partition: counters, and neighbours with their [forward, backward] weights."""

    mass: float = 0.0
    out: float = 0.0
    repeats: float = 0.0
    popularity: float = 0.0
    neighbours: dict[int, list[float]] = field(default_factory=dict)


class ItemPartition:
    """Follows one ``cooccurrence`` partition; every (source partition, offset) counts once."""

    def __init__(self, partition: int, partitions: int, model: Model | None = None) -> None:
        self.model = model or Model()
        self.tables: dict[int, Table] = {}
        self.transitions = 0
        self.repeated = 0
        self.watermarks: dict[int, int] = {}
        self._partition, self._partitions = partition, partitions
        self._counted: set[tuple[int, int]] = set()
        self._pair_landmark = self._popularity_landmark = 0

    def apply(self, message: Transitions) -> None:
        """Add one record of the topic."""
        columns = [
            message.rows[name].tolist()
            for name in ("item", "previous", "ts", "offset", "weight", "gap_s")
        ]
        fresh = [
            row
            for row in zip(*columns, strict=True)
            if (message.source_partition, row[3]) not in self._counted
        ]
        self._counted.update((message.source_partition, row[3]) for row in fresh)
        self.transitions += len(fresh)
        self.repeated += len(message.rows) - len(fresh)
        if fresh:
            last = max(row[3] for row in fresh)
            self.watermarks[message.source_partition] = last
            self._advance(max(row[2] for row in fresh))
        for item, previous, ts, _offset, weight, gaps_s in fresh:
            before = [pair for pair in zip(previous, gaps_s, strict=True) if pair[0]]
            self._add(item, before, ts, weight)

    def _advance(self, ts: float) -> None:
        step = LANDMARK_HALF_LIVES
        pair = int(ts // (step * self.model.pair_half_life_s))
        popularity = int(ts // (step * self.model.popularity_half_life_s))
        if pair > self._pair_landmark or popularity > self._popularity_landmark:
            by = 2.0 ** max(step * min(self._pair_landmark - pair, 0), -1000)
            by_popularity = 2.0 ** max(step * min(self._popularity_landmark - popularity, 0), -1000)
            for table in self.tables.values():
                table.mass, table.out, table.repeats = (
                    value * by for value in (table.mass, table.out, table.repeats)
                )
                table.popularity *= by_popularity
                for pair_weights in table.neighbours.values():
                    pair_weights[:] = [float(np.float32(w * by)) for w in pair_weights]
            self._pair_landmark = max(self._pair_landmark, pair)
            self._popularity_landmark = max(self._popularity_landmark, popularity)

    def _add(
        self, item: int, previous: Sequence[tuple[int, int]], ts: float, weight: float
    ) -> None:
        model, step = self.model, LANDMARK_HALF_LIVES
        growth = math.exp2(ts / model.pair_half_life_s - step * self._pair_landmark)
        ours = item % self._partitions == self._partition
        if ours:
            age = ts / model.popularity_half_life_s - step * self._popularity_landmark
            self._table(item).popularity += math.exp2(age) * weight
        for d, (before, gap_s) in enumerate(previous):
            what = growth * weight * (d + 1.0) ** -model.distance_power
            what *= (1.0 + gap_s / model.pair_gap_s) ** -0.5
            if before % self._partitions == self._partition:
                table = self._table(before)
                table.mass += what
                self._pair(table, item, 0, what)
                if d == 0 and weight > 0:
                    table.out += growth
                    table.repeats += growth * (before == item)
            if ours and before != item:
                table = self._table(item)
                table.mass += what
                self._pair(table, before, 1, what)

    def _table(self, item: int) -> Table:
        return self.tables.setdefault(item, Table())

    def _pair(self, table: Table, other: int, direction: int, what: float) -> None:
        pairs = table.neighbours
        if other not in pairs:
            if what <= 0:
                return
            if len(pairs) == self.model.neighbours_max:
                del pairs[min(pairs, key=lambda k: (np.float32(pairs[k][0] + pairs[k][1]), k))]
            pairs[other] = [0.0, 0.0]
        pairs[other][direction] = float(np.float32(pairs[other][direction] + np.float32(what)))

    def differences(self, blobs: dict[int, bytes], *, tolerance: float = 1e-6) -> dict[int, str]:
        """Items whose stored blob says something else, with what; counters to ``tolerance``."""
        found = {}
        for item, table in self.tables.items():
            blob = blobs.get(item)
            fault = "nothing is stored" if not blob else self._fault(table, blob, tolerance)
            if fault:
                found[item] = fault
        for item in blobs.keys() - self.tables.keys():
            found[item] = "stored, but the log does not speak of it"
        return found

    def _fault(self, table: Table, blob: bytes, tolerance: float) -> str | None:
        head = np.frombuffer(blob[: ITEM.itemsize], ITEM)[0]
        n = int(head["neighbours_n"])
        entries = np.frombuffer(blob, NEIGHBOUR, n, ITEM.itemsize)
        step = LANDMARK_HALF_LIVES
        pairs_ahead = int(head["pair_landmark"]) - self._pair_landmark
        popular_ahead = int(head["popularity_landmark"]) - self._popularity_landmark
        ahead = max(pairs_ahead, popular_ahead)
        if step * ahead > _EXPONENT_MAX:
            return f"it is {ahead} landmarks ahead of the log: learned with another model file?"
        pair, popular = math.ldexp(1.0, step * pairs_ahead), math.ldexp(1.0, step * popular_ahead)
        for name in COUNTERS:
            stored = float(head[name]) * (popular if name == "popularity" else pair)
            expected = getattr(table, name)
            if not math.isclose(stored, expected, rel_tol=tolerance, abs_tol=1e-12):
                return f"{name} is {stored!r}, the log says {expected!r}"
        stored_pairs = {
            int(e["id"]): (float(e["forward"]) * pair, float(e["backward"]) * pair) for e in entries
        }
        if stored_pairs.keys() != table.neighbours.keys():
            missing = len(table.neighbours.keys() - stored_pairs.keys())
            return f"{missing} of {len(table.neighbours)} neighbours are not stored"
        for other, expected_pair in table.neighbours.items():
            if not np.allclose(stored_pairs[other], expected_pair, rtol=1e-5, atol=1e-9):
                return f"neighbour {other:016x} is {stored_pairs[other]}, not {expected_pair}"
        return None
