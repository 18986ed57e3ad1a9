"""Counts by segment equal sums over the whole log, and stay within their bounds."""

import numpy as np
import pytest

from stream_app.core.landmarks import growth_of
from stream_app.core.learn import TRANSITION
from stream_app.core.model import Model
from stream_app.core.trending import (
    SEGMENT_ITEMS,
    SEGMENTS_MAX,
    SegmentCounts,
    decode_segments,
    trend_of,
)
from stream_app.errors import SchemaUnknown
from tests.core.logs import START_S

MODEL = Model()
WEB, APP = 7, 9
NAMES = {WEB: "web", APP: "app"}


def moves(seed: int, n: int = 400) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, TRANSITION)
    rows["item"] = rng.integers(1, 40, n)
    rows["ts"] = START_S + np.sort(rng.uniform(0, 3 * 86_400, n))
    rows["weight"] = rng.choice([1.0, 2.0, 3.0, -2.0], n)
    rows["segment"][:, 0] = rng.choice([0, WEB, APP], n)
    rows["offset"] = np.arange(n)
    return rows


@pytest.mark.parametrize("segment", [0, WEB, APP])
def test_counts_of_both_windows_equal_the_sums_on_every_prefix(segment: int) -> None:
    rows = moves(1)
    rows["weight"] = np.abs(rows["weight"])  # what was never counted cannot be taken back
    parts = [SegmentCounts(MODEL) for _ in range(2)]
    for end in range(50, len(rows) + 1, 50):
        for q, part in enumerate(parts):
            part.add(rows[end - 50 : end], NAMES, partition=q, partitions=2)
            parts[q] = decode_segments(part.encode(), MODEL)  # a restart changes nothing
        ts = float(rows["ts"][end - 1])
        seen = rows[:end]
        if segment:
            seen = seen[seen["segment"][:, 0] == segment]
        long = seen["weight"] * 0.5 ** ((ts - seen["ts"]) / MODEL.trend_long_s)
        short = seen["weight"] * 0.5 ** ((ts - seen["ts"]) / MODEL.trend_short_s)
        found = trend_of(parts, segment, ts, MODEL, size=100)
        counts = np.bincount(seen["item"].astype(int), long, 40)
        now = np.bincount(seen["item"].astype(int), short, 40)
        usual = counts * MODEL.trend_short_s / MODEL.trend_long_s
        np.testing.assert_allclose(found.popularity, np.sort(counts[counts > 0])[::-1])
        items = found.ids.astype(int)
        np.testing.assert_allclose(found.popularity, counts[items])
        np.testing.assert_allclose(found.trend, (now * (now + 2) / (usual + 2))[items])


def with_refunds(seed: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Moves of which some are taken back later, at the time that they had."""
    rows = moves(seed)
    rows["weight"] = np.abs(rows["weight"])
    rng = np.random.default_rng(seed)
    log = list(rows)
    for taken in rng.choice(300, 60, replace=False).tolist():
        back = rows[taken].copy()
        back["weight"] = -back["weight"]
        at = next(k for k, row in enumerate(log) if row["offset"] == taken and row["weight"] > 0)
        log.insert(int(rng.integers(at + 1, len(log) + 1)), back)
    return np.array(log, TRANSITION)


def test_what_is_taken_back_leaves_counts_and_use_of_a_segment_on_every_prefix() -> None:
    rows = with_refunds(4)
    assert (rows["weight"] < 0).sum() == 60
    counts = SegmentCounts(MODEL)
    for end in range(20, len(rows) + 1, 20):
        counts.add(rows[end - 20 : end], NAMES, partition=0, partitions=1)
        seen = rows[:end]
        ts = float(seen["ts"].max())
        for segment in (0, WEB, APP):
            of = seen if segment == 0 else seen[seen["segment"][:, 0] == segment]
            faded = 0.5 ** ((ts - of["ts"]) / MODEL.trend_long_s)
            expected = np.bincount(of["item"].astype(int), of["weight"] * faded, 40)
            ids, long, _ = counts.counts(segment, ts)
            found = np.bincount(ids.astype(int), long, 40)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
            (row,) = np.flatnonzero(counts.hashes == segment)[:1]
            used = counts.events[row] / growth_of(ts, counts.long_landmark, MODEL.trend_long_s)
            assert used == pytest.approx((np.sign(of["weight"]) * faded).sum(), rel=1e-9)


def test_a_refund_gives_no_segment_a_place() -> None:
    row = moves(5, 1)
    row["weight"], row["segment"][:, 0] = -3.0, WEB
    counts = SegmentCounts(MODEL)
    counts.add(row, NAMES, partition=0, partitions=1)
    assert WEB not in counts.names and counts.events.max() == 0.0


def test_batch_boundaries_change_nothing() -> None:
    rows = moves(2)
    blobs = set()
    for parts in (1, 7, len(rows)):
        counts = SegmentCounts(MODEL)
        for part in np.array_split(rows, parts):
            counts.add(part, NAMES, partition=0, partitions=1)
        blobs.add(counts.encode())
    assert len(blobs) == 1


def test_two_years_of_rescaling_lose_nothing() -> None:
    """Counted week by week under moving landmarks = summed at once as of the end."""
    rng = np.random.default_rng(6)
    rows = np.zeros(2 * 52 * 40, TRANSITION)
    rows["item"], rows["weight"] = rng.integers(1, 40, len(rows)), 1.0
    rows["ts"] = START_S + np.sort(rng.uniform(0, 2 * 365 * 86_400, len(rows)))
    rows["segment"][:, 0] = rng.choice([WEB, APP], len(rows))
    counts = SegmentCounts(MODEL)
    landmarks = []
    for week in np.array_split(rows, 2 * 52):
        counts.add(week, NAMES, partition=0, partitions=1)
        counts = decode_segments(counts.encode(), MODEL)
        landmarks.append((counts.long_landmark, counts.short_landmark))
        ts = float(week["ts"][-1])
        seen = rows[(rows["ts"] <= ts) & (rows["segment"][:, 0] == WEB)]
        ids, long, short = counts.counts(WEB, ts)
        for found, half_life_s in ((long, MODEL.trend_long_s), (short, MODEL.trend_short_s)):
            faded = 0.5 ** ((ts - seen["ts"]) / half_life_s)
            expected = np.bincount(seen["item"].astype(int), faded, 40)[ids.astype(int)]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-250)
    moved = np.subtract(landmarks[-1], landmarks[0])
    assert moved[0] > 40 and moved[1] > 1_000


def test_what_rises_now_goes_before_what_always_sells() -> None:
    rows = np.zeros(80, TRANSITION)
    rows["weight"] = 1.0
    rows["item"], rows["ts"] = 1, START_S + np.arange(80) * 1800.0
    rows["item"][70:], rows["ts"][70:] = 2, START_S + 69 * 1800.0 + np.arange(10) * 60.0
    counts = SegmentCounts(MODEL)
    counts.add(rows, {}, partition=0, partitions=1)
    found = trend_of([counts], 0, float(rows["ts"].max()), MODEL, size=5)
    assert found.ids.tolist() == [1, 2]  # by popularity
    assert found.trend[1] > found.trend[0]


def test_items_and_segments_are_bounded_and_unused_segments_give_way() -> None:
    counts = SegmentCounts(MODEL)
    rows = np.zeros(3_000, TRANSITION)
    rows["item"] = np.arange(1, 3_001)
    rows["weight"], rows["ts"] = 1.0, START_S + np.arange(3_000)
    rows["segment"][:, 1] = 1 + np.arange(3_000) % 400
    counts.add(rows, {k: f"r{k}" for k in range(1, 401)}, partition=0, partitions=1)
    assert counts.filled.max() == SEGMENT_ITEMS
    assert len(counts.names) == SEGMENTS_MAX
    assert len(counts.encode()) < SEGMENTS_MAX * (SEGMENT_ITEMS * 24 + 64)
    busy = np.zeros(200, TRANSITION)
    busy["item"], busy["weight"], busy["ts"] = 5, 1.0, START_S + 9_000
    busy["segment"][:, 0] = WEB
    counts.add(busy, NAMES, partition=0, partitions=1)
    assert WEB in counts.names


def test_an_unknown_schema_stops_the_worker() -> None:
    with pytest.raises(SchemaUnknown, match="newer"):
        decode_segments(b"\x09" + bytes(40), MODEL)
    assert decode_segments(None, MODEL).names == {0: "all"}
