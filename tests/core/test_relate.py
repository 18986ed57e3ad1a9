"""Item tables merged batch by batch equal sums over the whole log, and stay within their bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.codec import Transitions
from stream_app.core.learn import EVENT, TRANSITION
from stream_app.core.model import KIND, Model
from stream_app.core.tables import ITEM, NEIGHBOUR
from stream_app.offline.recompute_items import ItemPartition, Masses
from tests.core.logs import START_S, Related, Stream, cuts, logs, pieces

RELATIVE = 1e-9


def moves(*rows: tuple[int, tuple[int, ...], float, float]) -> NDArray[np.void]:
    """Transitions (item, previous, ts, weight) at rising offsets."""
    found = np.zeros(len(rows), TRANSITION)
    for k, (item, previous, ts, weight) in enumerate(rows):
        found[k] = (item, (*previous, 0, 0, 0)[:3], ts, k, weight, (0, 0), (0, 0, 0), (0, 0))
    return found


def neighbours(blob: bytes) -> dict[int, tuple[float, float]]:
    """Forward and backward weight by id."""
    n = int(np.frombuffer(blob[: ITEM.itemsize], ITEM)["neighbours_n"][0])
    entries = np.frombuffer(blob, NEIGHBOUR, n, ITEM.itemsize)
    return {int(e["id"]): (float(e["forward"]), float(e["backward"])) for e in entries}


def worst(masses: Masses, blobs: dict[int, bytes]) -> float:
    """The largest relative error of any item's counters."""
    ids = np.array(list(blobs), np.uint64)
    headers = np.frombuffer(b"".join(blob[: ITEM.itemsize] for blob in blobs.values()), ITEM)
    sums = masses.sums()
    assert set(sums.ids.tolist()) <= set(blobs)
    return float(sums.errors(headers, ids).max(initial=0.0))


@settings(max_examples=40, deadline=None)
@given(logs())
def test_online_equals_the_sums_on_every_prefix(log: NDArray[np.void]) -> None:
    stream, related, masses = Stream(), Related(), Masses()
    follower = ItemPartition(0, 1)
    for part in np.array_split(log, max(1, len(log) // 7)):
        transitions = stream.learn(part).transitions
        if not len(transitions):
            continue
        related.merge(transitions)
        masses.add(transitions)
        follower.apply(Transitions(0, transitions, []))
        assert worst(masses, related.blobs()) <= RELATIVE
        assert follower.differences(related.blobs()) == {}


@settings(max_examples=40, deadline=None)
@given(logs(), st.data())
def test_batch_boundaries_do_not_matter(log: NDArray[np.void], data: st.DataObject) -> None:
    transitions = Stream().learn(log).transitions
    whole, cut = Related(), Related()
    whole.merge(transitions)
    for part in pieces(transitions, data.draw(cuts(len(transitions)))):
        cut.merge(part)
    assert cut.blobs() == whole.blobs()


def test_pairs_are_kept_by_direction_and_weighted_by_distance() -> None:
    related, model = Related(), Model()
    related.merge(moves((4, (3, 2, 1), START_S, 2.0), (4, (4,), START_S, 1.0)))
    g = related.tables.growth(START_S)
    blobs = related.blobs()
    for d, item in enumerate((3, 2, 1), 1):
        v = g * 2.0 * d**-model.distance_power
        assert neighbours(blobs[item])[4] == pytest.approx((v, 0.0))
        assert neighbours(blobs[4])[item] == pytest.approx((0.0, v))
    assert neighbours(blobs[4])[4] == pytest.approx((g, 0.0)), "a repeat counts once"


def test_a_pair_counts_less_the_longer_the_two_are_apart() -> None:
    related, model = Related(), Model()
    rows = moves((4, (3, 2, 1), START_S, 1.0))
    rows["gap_s"][0] = (0, 60, 540)
    related.merge(rows)
    g = related.tables.growth(START_S)
    blobs = related.blobs()
    for d, (item, share) in enumerate(((3, 1.0), (2, 2**-0.5), (1, 10**-0.5)), 1):
        v = g * share * d**-model.distance_power
        assert neighbours(blobs[item])[4] == pytest.approx((v, 0.0))
        assert neighbours(blobs[4])[item] == pytest.approx((0.0, v))
        header = np.frombuffer(blobs[item][: ITEM.itemsize], ITEM)
        assert header["mass"][0] == pytest.approx(v)
        assert header["out"][0] == pytest.approx(g if d == 1 else 0.0), "moves are counted whole"


def test_partitions_hold_together_what_one_would_hold() -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(1, 2**63, 40)
    rows = [
        (
            int(rng.choice(ids)),
            tuple(int(i) for i in rng.choice(ids, 3)),
            START_S + 100.0 * k,
            float(rng.choice([1.0, 3.0])),
        )
        for k in range(600)
    ]
    one, parts = Related(), [Related(partition=q, partitions=3) for q in range(3)]
    for related in (one, *parts):
        related.merge(moves(*rows))
    together: dict[int, bytes] = {}
    for q, part in enumerate(parts):
        blobs = part.blobs()
        assert all(key % 3 == q for key in blobs)
        together |= blobs
    assert together == one.blobs()


def test_a_full_table_gives_up_its_smallest_entry_ties_by_id() -> None:
    model = Model(neighbours_max=4)
    related = Related(model)
    related.merge(
        moves(*((item, (1,), START_S, w) for item, w in ((5, 2), (4, 1), (3, 1), (2, 3))))
    )
    assert neighbours(related.blobs()[1]).keys() == {2, 3, 4, 5}
    related.merge(moves((9, (1,), START_S, 1.0)))
    assert neighbours(related.blobs()[1]).keys() == {2, 4, 5, 9}, "3 and 4 tie, 3 is smaller"
    related.merge(moves((8, (1,), START_S, 1.0)))
    assert neighbours(related.blobs()[1]).keys() == {2, 5, 8, 9}
    g = related.tables.growth(START_S)
    header = np.frombuffer(related.blobs()[1][: ITEM.itemsize], ITEM)
    assert header["mass"][0] == pytest.approx(9 * g), "a mass counts what its table gave up, too"


def test_the_bound_holds_whatever_comes() -> None:
    rng = np.random.default_rng(5)
    model = Model(neighbours_max=50)
    related, follower = Related(model), ItemPartition(0, 1, model)
    for k in range(20):
        ids = rng.zipf(1.3, (200, 4)) % 500 + 1
        rows = moves(*((int(i[0]), tuple(map(int, i[1:])), START_S + 3600.0 * k, 1.0) for i in ids))
        rows["offset"] += 200 * k
        related.merge(rows)
        follower.apply(Transitions(0, rows, []))
    sizes = [len(neighbours(blob)) for blob in related.blobs().values()]
    assert max(sizes) == 50
    assert follower.differences(related.blobs()) == {}


def test_what_a_table_gave_up_cannot_be_taken_back_from_it() -> None:
    related = Related(Model(neighbours_max=2))
    related.merge(moves(*((item, (1,), START_S, w) for item, w in ((2, 3.0), (3, 5.0), (4, 4.0)))))
    related.merge(moves((2, (1,), START_S, -3.0)))
    kept = neighbours(related.blobs()[1])
    assert kept.keys() == {3, 4}
    assert min(forward for forward, _ in kept.values()) > 0


def test_a_refund_leaves_the_sums_as_if_nothing_had_been_bought() -> None:
    related, untouched = Related(), Related()
    for which in (related, untouched):
        which.merge(moves((2, (1,), START_S, 1.0)))
    related.merge(moves((3, (2, 1), START_S, 3.0), (3, (2, 1), START_S, -3.0)))
    for item in (1, 2):
        one, other = (
            np.frombuffer(r.blobs()[item][: ITEM.itemsize], ITEM) for r in (related, untouched)
        )
        assert one["mass"][0] == pytest.approx(other["mass"][0], rel=1e-12)
        assert one["popularity"][0] == pytest.approx(other["popularity"][0], rel=1e-12)


def test_a_recompute_by_another_model_says_so() -> None:
    rows, fast_s, slow_s = moves((2, (1,), START_S, 1.0)), 3_600.0, 30 * 365 * 86_400.0
    for stored_by, log_by in (
        (Model(pair_half_life_s=fast_s), Model()),
        (Model(), Model(popularity_half_life_s=slow_s)),
    ):
        related, other = Related(stored_by), ItemPartition(0, 1, log_by)
        related.merge(rows)
        other.apply(Transitions(0, rows, []))
        faults = other.differences(related.blobs())
        assert set(faults) == {1, 2}
        assert all("another model file?" in said for said in faults.values())


def test_what_leaves_the_cart_is_subtracted_from_pairs_and_popularity() -> None:
    log = np.zeros(4, EVENT)
    log["customer"], log["offset"], log["ts"] = 1, np.arange(4), START_S + np.arange(4)
    log["item"] = (1, 2, 3, 3)
    kinds = ("view", "view", "add_to_cart", "remove_from_cart")
    log["kind"] = [KIND[kind] for kind in kinds]
    blobs = []
    for end in (2, 3, 4):
        stream, related = Stream(), Related()
        related.merge(stream.learn(log[:end]).transitions)
        blobs.append(related.blobs())
    viewed, added, removed = blobs
    assert neighbours(added[2])[3][0] > 0 and neighbours(added[1])[3][0] > 0
    assert neighbours(removed[2])[3] == neighbours(removed[1])[3] == (0.0, 0.0)
    head = np.frombuffer(removed[3][: ITEM.itemsize], ITEM)
    assert (head["popularity"][0], head["mass"][0]) == pytest.approx((0.0, 0.0), abs=1e-9)
    for item in (1, 2):
        assert neighbours(removed[item])[3 - item] == neighbours(viewed[item])[3 - item]
        one, other = (np.frombuffer(b[item][: ITEM.itemsize], ITEM) for b in (removed, viewed))
        assert one["mass"][0] == pytest.approx(other["mass"][0], rel=1e-12)


def test_late_transitions_count_as_of_their_own_time() -> None:
    in_order, late = Related(), Related()
    young, old = (2, (1,), START_S, 1.0), (3, (1,), START_S - 90 * 86_400.0, 1.0)
    in_order.merge(moves(old))
    in_order.merge(moves(young))
    late.merge(moves(young))
    late.merge(moves(old))
    one, other = neighbours(in_order.blobs()[1]), neighbours(late.blobs()[1])
    assert one == other
    faded = 0.5 ** (90 * 86_400.0 / Model().pair_half_life_s)
    assert one[3][0] / one[2][0] == pytest.approx(faded, rel=1e-6)
