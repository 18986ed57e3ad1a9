"""Item tables: landmarks that move without loss, blobs that round-trip, memory that is bounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.core.landmarks import landmark_of
from stream_app.core.model import LANDMARK_HALF_LIVES, Model
from stream_app.core.tables import ITEM, ItemTables
from stream_app.errors import SchemaUnknown
from stream_app.items import TOP_MAX, Top, decode_top
from stream_app.offline.recompute_items import Masses
from tests.core.logs import START_S, Related
from tests.core.test_relate import moves, neighbours, worst

DAY_S = 86_400.0


def test_moving_a_landmark_multiplies_by_a_power_of_two() -> None:
    related, model = Related(), Model()
    related.merge(moves((2, (1,), START_S, 1.0), (3, (2, 1), START_S + 7.7, 3.0)))
    tables = related.tables
    before = tables.nodes.copy(), tables.forward.copy(), tables.pair_landmark
    tables.advance(START_S + 2 * LANDMARK_HALF_LIVES * model.pair_half_life_s)
    steps = tables.pair_landmark - before[2]
    assert steps == 2
    for name in ("mass", "out", "repeats"):
        assert (np.ldexp(tables.nodes[name], LANDMARK_HALF_LIVES * steps) == before[0][name]).all()
    assert (np.ldexp(tables.forward, LANDMARK_HALF_LIVES * steps) == before[1]).all()


def test_time_never_moves_a_landmark_back() -> None:
    tables = Related().tables
    tables.advance(START_S)
    landmarks = tables.pair_landmark, tables.popularity_landmark
    tables.advance(START_S - 400 * DAY_S)
    assert (tables.pair_landmark, tables.popularity_landmark) == landmarks


def test_twelve_years_of_rescaling_lose_nothing() -> None:
    """Merged week by week under moving landmarks = summed at once in the units of the end."""
    related, masses = Related(), Masses()
    rng = np.random.default_rng(2)
    for week in range(12 * 52):
        ids = rng.integers(1, 30, (3, 4))
        start = START_S + week * 7 * DAY_S
        rows = moves(
            *((int(i[0]), tuple(map(int, i[1:])), start + k, 1.0) for k, i in enumerate(ids))
        )
        related.merge(rows)
        masses.add(rows)
    assert related.tables.pair_landmark - landmark_of(START_S, Model().pair_half_life_s) > 10
    assert worst(masses, related.blobs()) <= 1e-9
    sums, half_life_s = masses.sums(), Model().pair_half_life_s
    dense, place = sums.forward.toarray(), {item: k for k, item in enumerate(sums.ids.tolist())}
    pairs = 0
    for item, blob in related.blobs().items():
        landmark = float(np.frombuffer(blob[: ITEM.itemsize], ITEM)["pair_landmark"][0])
        scale = np.exp2(LANDMARK_HALF_LIVES * landmark - sums.ts / half_life_s)
        for other, (forward, backward) in neighbours(blob).items():
            after, before = dense[place[item], place[other]], dense[place[other], place[item]]
            assert forward * scale == pytest.approx(after, rel=1e-5, abs=1e-30)
            if other != item:  # what comes after itself is counted once
                assert backward * scale == pytest.approx(before, rel=1e-5, abs=1e-30)
            pairs += 1
    assert pairs > 25 * 25


def test_blobs_of_different_landmarks_come_together() -> None:
    model = Model()
    later = START_S + 3 * LANDMARK_HALF_LIVES * model.pair_half_life_s
    old, new, both = Related(), Related(), Related()
    old.merge(moves((2, (1,), START_S, 1.0)))
    new.merge(moves((4, (3,), later, 1.0)))
    both.merge(moves((2, (1,), START_S, 1.0), (4, (3,), later, 1.0)))
    stored = old.blobs() | new.blobs()
    for order in (sorted(stored), sorted(stored, reverse=True)):
        read = ItemTables(model, rows_max=1_000, nodes_max=2_000)
        for key in order:
            read.decode(read.ensure(np.array([key], np.uint64)), [stored[key]], now=0.0)
        nodes = read.ensure(np.array(sorted(stored), np.uint64))
        blobs = dict(zip(sorted(stored), read.encode(nodes), strict=True))
        assert blobs == both.blobs()


ids = st.integers(1, 2**64 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(ids, st.lists(ids, max_size=3), st.floats(1e9, 2e9), st.floats(0.5, 3)),
        min_size=1,
        max_size=20,
    ),
    texts,
)
def test_items_round_trip(rows: list[tuple[int, list[int], float, float]], name: str) -> None:
    related = Related()
    related.merge(moves(*((i, tuple(before), ts, w) for i, before, ts, w in rows)))
    related.tables.set_names(np.array([rows[0][0]], np.uint64), [name])
    blobs = related.blobs()
    again = ItemTables(related.tables.model, rows_max=1_000, nodes_max=2_000)
    nodes = again.ensure(np.array(list(blobs), np.uint64))
    again.decode(nodes, list(blobs.values()), now=0.0)
    assert dict(zip(blobs, again.encode(nodes), strict=True)) == blobs
    assert again.names[int(again.lookup(np.array([rows[0][0]], np.uint64))[0])] == name


def test_an_unknown_schema_stops_the_worker() -> None:
    related = Related()
    related.merge(moves((2, (1,), START_S, 1.0)))
    blob = related.blobs()[1]
    tables = Related().tables
    nodes = tables.ensure(np.array([1], np.uint64))
    with pytest.raises(SchemaUnknown, match=r"item state has schemas \[9\].*reads 2.*newer"):
        tables.decode(nodes, [b"\x09" + blob[1:]], now=0.0)
    with pytest.raises(SchemaUnknown, match="13 bytes"):
        decode_top(b"\0" * 13)


def test_an_item_without_state_is_known_to_be_empty() -> None:
    tables = Related().tables
    nodes = tables.ensure(np.array([1], np.uint64))
    tables.decode(nodes, [None], now=5.0)
    assert tables.nodes["known"][nodes].tolist() == [1]
    header = np.frombuffer(tables.encode(nodes)[0][: ITEM.itemsize], ITEM)
    assert (header["mass"][0], header["neighbours_n"][0]) == (0.0, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(-5, 5_000),
    st.lists(st.tuples(ids, st.floats(-1e3, 1e9)), max_size=TOP_MAX, unique_by=lambda r: r[0]),
)
def test_tops_round_trip(landmark: int, rows: list[tuple[int, float]]) -> None:
    top = Top(landmark, np.array([i for i, _ in rows], np.uint64), np.array([p for _, p in rows]))
    again = decode_top(top.encode())
    assert (again.landmark, again.ids.tolist()) == (landmark, top.ids.tolist())
    assert again.popularity.tolist() == top.popularity.tolist()
    assert not len(decode_top(None).ids)


def test_neighbour_tables_are_evicted_oldest_first_and_read_again() -> None:
    tables = ItemTables(Model(), rows_max=300, nodes_max=10_000)
    everyone = tables.ensure(np.arange(1, 1_001, dtype=np.uint64))
    for part in np.array_split(everyone, 10):
        tables.ensure_rows(part)
        tables.nodes["authority"][part] = 1
        assert (tables.nodes["row"][part] >= 0).all()
        assert len(tables.filled) <= 2 * 300
    evicted = tables.nodes["row"][everyone] < 0
    assert evicted[:400].all()
    assert not evicted[-100:].any()
    assert not tables.nodes["authority"][everyone][evicted].any()
    ids = tables.nodes["id"][everyone]
    assert tables.stale(ids, before=0.0).tolist() == sorted(ids[evicted].tolist())


def test_clearing_forgets_everything_but_the_time() -> None:
    related = Related()
    related.merge(moves((2, (1,), START_S, 1.0)))
    landmark = related.tables.pair_landmark
    related.tables.clear()
    assert related.tables.nodes_n == 0
    assert related.tables.lookup(np.array([1, 2], np.uint64)).tolist() == [-1, -1]
    assert related.tables.pair_landmark == landmark
