"""What is asked for now, by segment: decayed counts with a short and a long half-life.

A segment is a channel or a region that events name; ``all`` is everybody. Per segment a bounded
table keeps the items with the largest long-term counts (the smallest gives way when it is full, as
in Misra and Gries 1982), and there are at most ``SEGMENTS_MAX`` segments: a new one takes the place
of one that nearly nobody uses any more, or is not counted by itself. One per item partition,
written by its owner. Read as popularity of the segment, and as trend: how much more an item is
asked for in the short window than the long one would make one expect.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, one_layout, signed
from stream_app.core.landmarks import factor_of, growth_of, landmark_of
from stream_app.core.model import LANDMARK_HALF_LIVES, SEGMENTS_OF_EVENT, Model
from stream_app.errors import SchemaUnknown

SEGMENTS_MAX = 16
SEGMENT_ITEMS = 128
ALL = 0  # the segment of everybody; its hash is 0
ALL_NAME = "all"
_UNUSED = 5.0  # decayed events below which a segment gives way to a new one
_PRIOR = 2.0  # events: one sale in a quiet hour is no trend
_SCHEMA = 1
_HEAD = struct.Struct("<BxHxxxxii")  # schema, segments, landmarks
_SEGMENT = struct.Struct("<IHHd")  # hash, items, bytes of the name, events
_ITEM = np.dtype([("id", "u8"), ("long", "f8"), ("short", "f8")])


class Trend(NamedTuple):
    """Items of one segment, best first: ``ids (n,)``, ``popularity (n,)`` and ``trend (n,)``."""

    ids: NDArray[np.uint64]
    popularity: NDArray[np.float64]
    trend: NDArray[np.float64]


@kernel
def _segment_row(
    hashes: NDArray[np.uint32],
    events: NDArray[np.float64],
    filled: NDArray[np.int64],
    segment: int,
    weight: float,
    growth: float,
) -> int:
    """Row of a segment, made where it is new and there is room; -1 when there is none.

    What takes back (``weight`` < 0) makes none: a new segment has nothing to give back.
    """
    least = 1
    for row in range(1, len(hashes)):
        if hashes[row] == segment:
            return row
        if hashes[row] == 0:
            least = row
            break
        if events[row] < events[least]:
            least = row
    if weight < 0.0 or (hashes[least] != 0 and events[least] >= _UNUSED * growth):
        return -1
    hashes[least], events[least], filled[least] = segment, 0.0, 0
    return least


@kernel
def _count(
    ids: NDArray[np.uint64],
    long: NDArray[np.float64],
    short: NDArray[np.float64],
    n: int,
    item: int,
    more_long: float,
    more_short: float,
) -> int:
    """Add to one item of one segment; returns how many it has then."""
    at = -1
    for k in range(n):
        if ids[k] == item:
            at = k
            break
    if at < 0:
        if more_long <= 0.0:
            return n
        if n < len(ids):
            at = n
            n += 1
        else:
            at = 0
            for k in range(1, n):
                if long[k] < long[at] or (long[k] == long[at] and ids[k] < ids[at]):
                    at = k
        ids[at], long[at], short[at] = item, 0.0, 0.0
    long[at] += more_long
    short[at] += more_short
    return n


@kernel
def count_events(
    transitions: NDArray[np.void],
    partition: int,
    partitions: int,
    long_half_life_s: float,
    long_origin: float,
    short_half_life_s: float,
    short_origin: float,
    hashes: NDArray[np.uint32],
    events: NDArray[np.float64],
    filled: NDArray[np.int64],
    ids: NDArray[np.uint64],
    long: NDArray[np.float64],
    short: NDArray[np.float64],
) -> None:
    """Count ``(n,) TRANSITION`` in order, those of the partition's items."""
    for t in range(len(transitions)):
        move = transitions[t]
        if move.item % np.uint64(partitions) != np.uint64(partition):
            continue
        growth = 2.0 ** (move.ts / long_half_life_s - long_origin)
        more_short = move.weight * 2.0 ** (move.ts / short_half_life_s - short_origin)
        for s in range(-1, SEGMENTS_OF_EVENT):
            row = ALL
            if s >= 0:
                if move.segment[s] == 0:
                    continue
                row = signed(
                    _segment_row(hashes, events, filled, move.segment[s], move.weight, growth)
                )
                if row < 0:
                    continue
            # A refund has the time of its purchase, so the two leave nothing behind.
            events[row] = max(events[row] + np.sign(move.weight) * growth, 0.0)
            filled[row] = _count(
                ids[row],
                long[row],
                short[row],
                filled[row],
                move.item,
                move.weight * growth,
                more_short,
            )


class SegmentCounts:
    """The segments of one item partition; ``names`` are their texts by hash."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.names: dict[int, str] = {0: ALL_NAME}
        self.hashes = np.zeros(SEGMENTS_MAX, np.uint32)
        self.events = np.zeros(SEGMENTS_MAX)
        self.filled = np.zeros(SEGMENTS_MAX, np.int64)
        self.ids = np.zeros((SEGMENTS_MAX, SEGMENT_ITEMS), np.uint64)
        self.long = np.zeros((SEGMENTS_MAX, SEGMENT_ITEMS))
        self.short = np.zeros((SEGMENTS_MAX, SEGMENT_ITEMS))
        self.long_landmark = self.short_landmark = 0

    def add(
        self,
        transitions: NDArray[np.void],
        names: Mapping[int, str],
        *,
        partition: int,
        partitions: int,
    ) -> None:
        """Count ``(n,) TRANSITION``; ``names`` are texts of their segments."""
        if not len(transitions):
            return
        self._advance(float(transitions["ts"].max()))
        count_events(
            one_layout(transitions),
            partition,
            partitions,
            self.model.trend_long_s,
            float(LANDMARK_HALF_LIVES * self.long_landmark),
            self.model.trend_short_s,
            float(LANDMARK_HALF_LIVES * self.short_landmark),
            self.hashes,
            self.events,
            self.filled,
            self.ids,
            self.long,
            self.short,
        )
        known = {**names, **self.names}
        self.names = {
            key: known.get(key, "") for key in (0, *self.hashes[self.hashes > 0].tolist())
        }

    def _advance(self, ts: float) -> None:
        long = landmark_of(ts, self.model.trend_long_s)
        short = landmark_of(ts, self.model.trend_short_s)
        if long > self.long_landmark:
            self.long *= factor_of(self.long_landmark - long)
            self.events *= factor_of(self.long_landmark - long)
            self.long_landmark = long
        if short > self.short_landmark:
            self.short *= factor_of(self.short_landmark - short)
            self.short_landmark = short

    def counts(
        self, segment: int, ts: float
    ) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
        """Ids, long and short counts of a segment's items, decayed to ``ts``."""
        rows = np.flatnonzero(self.hashes == segment)[:1] if segment else np.array([ALL])
        if not len(rows):
            return np.zeros(0, np.uint64), np.zeros(0), np.zeros(0)
        row, n = int(rows[0]), int(self.filled[rows[0]])
        long = self.long[row, :n] / growth_of(ts, self.long_landmark, self.model.trend_long_s)
        short = self.short[row, :n] / growth_of(ts, self.short_landmark, self.model.trend_short_s)
        return self.ids[row, :n], long, short

    def encode(self) -> bytes:
        """The blob stored beside the partition's items."""
        rows = [ALL, *np.flatnonzero(self.hashes).tolist()]
        parts = [_HEAD.pack(_SCHEMA, len(rows), self.long_landmark, self.short_landmark)]
        items = np.empty((len(rows), SEGMENT_ITEMS), _ITEM)
        items["id"], items["long"] = self.ids[rows], self.long[rows]
        items["short"] = self.short[rows]
        packed, size = items.tobytes(), SEGMENT_ITEMS * _ITEM.itemsize
        columns = (column[rows].tolist() for column in (self.filled, self.hashes, self.events))
        for at, (n, key, events) in enumerate(zip(*columns, strict=True)):
            name = self.names.get(key, "").encode("utf-8", "surrogatepass")
            parts += [
                _SEGMENT.pack(key, n, len(name), events),
                name,
                packed[at * size : at * size + n * _ITEM.itemsize],
            ]
        return b"".join(parts)


def decode_segments(blob: bytes | None, model: Model) -> SegmentCounts:
    """The inverse of :meth:`SegmentCounts.encode`; nothing gives nothing counted.

    Raises :class:`~stream_app.errors.SchemaUnknown` for a blob of a newer release.
    """
    counts = SegmentCounts(model)
    if not blob:
        return counts
    if blob[0] != _SCHEMA:
        raise SchemaUnknown(
            f"popularity by segment has schema {blob[0]}, this release reads {_SCHEMA}:"
            " run the release that wrote it, or newer"
        )
    _, rows, counts.long_landmark, counts.short_landmark = _HEAD.unpack_from(blob)
    at = _HEAD.size
    for row in range(rows):
        key, n, size, counts.events[row] = _SEGMENT.unpack_from(blob, at)
        at += _SEGMENT.size
        counts.hashes[row] = key
        counts.names[key] = blob[at : at + size].decode("utf-8", "surrogatepass")
        at += size
        items = np.frombuffer(blob, _ITEM, n, at)
        at += n * _ITEM.itemsize
        counts.filled[row] = n
        counts.ids[row, :n], counts.long[row, :n] = items["id"], items["long"]
        counts.short[row, :n] = items["short"]
    return counts


def trend_of(
    parts: Iterable[SegmentCounts], segment: int, ts: float, model: Model, *, size: int
) -> Trend:
    """The ``size`` most popular items of a segment over all partitions, ties by id.

    With s and l the short and the long count and e = l · (short / long half-life) what the long one
    makes one expect of the short one, the trend is s · (s + 2) / (e + 2).
    """
    found = [part.counts(segment, ts) for part in parts]
    if not found:
        return Trend(np.zeros(0, np.uint64), np.zeros(0), np.zeros(0))
    ids, long, short = (np.concatenate(column) for column in zip(*found, strict=True))
    kept = long > 1e-9
    ids, long, short = ids[kept], long[kept], np.maximum(short[kept], 0.0)
    usual = long * (model.trend_short_s / model.trend_long_s)
    trend = short * (short + _PRIOR) / (usual + _PRIOR)
    order = np.lexsort((ids, -long))[:size]
    return Trend(ids[order], long[order], trend[order])
